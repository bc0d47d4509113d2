#!/usr/bin/env python3
"""A controller beyond Kafka: one effect for each job that Dragnet has ended.

It shares no code with Dragnet, only the contract of docs/messages.md. Events come at least once; the ledger's
primary key makes one effect of them. The order of its three steps is what makes it safe to kill at any point:
the effect is committed first, then confirmed to Dragnet, then the offset is committed to Kafka. What is lost in
between comes again, from Kafka or, when Kafka has lost it too, from Dragnet, which publishes until it is
confirmed.
"""

import argparse
import json
import os
import sqlite3
import sys
import time
import urllib.error
import urllib.request

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kafka", required=True, metavar="HOST:PORT")
    parser.add_argument("--prefix", default="dragnet", help="as `dragnet serve --kafka-prefix`")
    parser.add_argument("--name", default="audit", help="as in `dragnet serve --beyond NAME=TOPIC`")
    parser.add_argument("--server", required=True, metavar="URL", help="the API of Dragnet")
    parser.add_argument("--ledger", required=True, metavar="FILE", help="an SQLite database of this controller's own")
    return parser.parse_args()


def open_ledger(file):
    ledger = sqlite3.connect(file, isolation_level=None)
    ledger.execute("pragma journal_mode = wal")
    ledger.execute("pragma synchronous = full")
    ledger.execute("create table if not exists effect (id text primary key, job text not null, tenant text not null)")
    return ledger


def event_of(payload, kind):
    """The event, or None for what is none of ours: whoever may write to a topic may write anything."""
    try:
        event = json.loads(payload)
        data = event["data"]
        if event["specversion"] != "1.0" or not event["type"].startswith(kind):
            return None
        if not all(isinstance(text, str) for text in (event["id"], data["job"], data["tenant"])):
            return None
        return event
    except (TypeError, ValueError, KeyError, AttributeError):
        return None


def take_effect(ledger, event):
    """One row per id, however often the event comes."""
    row = (event["id"], event["data"]["job"], event["data"]["tenant"])
    ledger.execute("insert into effect (id, job, tenant) values (?, ?, ?) on conflict (id) do nothing", row)


def confirm(server, name, identifier):
    """Returns whether Dragnet has taken it, or never will; False means: try again."""
    headers = {"Content-Type": "application/json"}
    # With tenants: a key of the tenant `default` with the scope `admin`, as events are of all tenants.
    if key := os.environ.get("DRAGNET_API_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    request = urllib.request.Request(
        f"{server}/v1/groups/{name}/confirmations",
        data=json.dumps({"id": identifier}).encode(),
        headers=headers,
        method="POST",
    )
    try:
        with urllib.request.urlopen(request, timeout=10):
            return True
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            sys.exit(f"the key in DRAGNET_API_KEY may not confirm: {error.read().decode()}")
        # Of another Dragnet, or forged: it is nothing to wait for.
        return error.code in (400, 404)
    except OSError:
        return False


def consume(options, ledger):
    """Works until Kafka fails in a way that a new consumer mends, such as a topic that was deleted."""
    topic = f"{options.prefix}.beyond.{options.name}"
    consumer = Consumer(
        {
            "bootstrap.servers": options.kafka,
            "group.id": f"{topic}.controller",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "session.timeout.ms": 6000,
            "allow.auto.create.topics": True,
            "topic.metadata.refresh.interval.ms": 2000,
        }
    )
    try:
        consumer.subscribe([topic])
        while True:
            message = consumer.poll(1.0)
            if message is None:
                continue
            if message.error():
                if message.error().code() == KafkaError._PARTITION_EOF:
                    continue
                raise KafkaException(message.error())
            event = event_of(message.value(), "dragnet.")
            if event is not None:
                take_effect(ledger, event)
                while not confirm(options.server, options.name, event["id"]):
                    time.sleep(0.5)
            done = TopicPartition(message.topic(), message.partition(), message.offset() + 1)
            consumer.commit(offsets=[done], asynchronous=True)
    finally:
        consumer.close()


def main():
    options = arguments()
    ledger = open_ledger(options.ledger)
    while True:
        try:
            consume(options, ledger)
        except KafkaException as error:
            print(f"Kafka: {error}; again in 1 s", file=sys.stderr, flush=True)
            time.sleep(1)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
