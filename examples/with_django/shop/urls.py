from django.db import connection, transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from django.views.decorators.http import require_POST

from shop.events import OrderPlaced, app
from shop.models import Order


@require_POST
def place(request: HttpRequest, order_id: str) -> HttpResponse:
    total = int(request.GET["total"])
    with transaction.atomic():
        Order.objects.create(id=order_id, total=total)
        app.outbox.add(connection, OrderPlaced(order_id, total))
        if total < 0:
            raise ValueError("rolled back: there is no order, and nobody hears of one")
    return HttpResponse(status=201)


def orders(request: HttpRequest) -> JsonResponse:
    return JsonResponse(dict(Order.objects.values_list("id", "packed")))


urlpatterns = [path("orders/<str:order_id>", place), path("orders", orders)]
