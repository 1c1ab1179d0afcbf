from django.db import models


class Order(models.Model):
    id = models.CharField(primary_key=True, max_length=50)
    total = models.IntegerField()
    packed = models.BooleanField(default=False)

    def __str__(self) -> str:
        return self.id
