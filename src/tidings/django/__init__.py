"""The command line inside Django: with "tidings.django" in INSTALLED_APPS, `manage.py tidings ...` is `tidings ...`.

The setting TIDINGS_APP names the app, as in "shop.events:app". The outbox needs none of this.
"""
