from django.conf import settings

from shop.models import Order
from tidings import App, Key, event


@event(topic="orders")
class OrderPlaced:
    order_id: Key[str]
    total: int


app = App(settings.DATABASE_URL)


@app.on(OrderPlaced)
def pack(order: OrderPlaced) -> None:  # a plain function runs in a thread, where Django's models may be used
    Order.objects.filter(pk=order.order_id).update(packed=True)
