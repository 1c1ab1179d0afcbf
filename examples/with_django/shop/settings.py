"""Settings: one database for Django and for tidings, and the app whose handlers `manage.py tidings run` runs."""

import os
from urllib.parse import urlsplit

DATABASE_URL = os.environ.get("DATABASE_URL", "postgresql://localhost/shop")
_url = urlsplit(DATABASE_URL)

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": _url.path.strip("/"),
        "HOST": _url.hostname,
        "PORT": _url.port or "",
        "USER": _url.username or "",
        "PASSWORD": _url.password or "",
    }
}
INSTALLED_APPS = ["shop", "tidings.django"]
TIDINGS_APP = "shop.events:app"

ROOT_URLCONF = "shop.urls"
SECRET_KEY = "for an example"
ALLOWED_HOSTS = ["127.0.0.1"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
