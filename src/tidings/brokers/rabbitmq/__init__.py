"""RabbitMQ: an exchange per topic, a queue per app and topic, publisher confirms, over AMQP 0-9-1 (pika)."""

from tidings.brokers.rabbitmq.broker import RabbitBroker

__all__ = ["RabbitBroker"]
