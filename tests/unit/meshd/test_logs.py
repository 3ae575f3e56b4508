import logging

from meshd.logs import KeyValueFormatter


def test_extras_follow_the_message_as_key_value() -> None:
    record = logging.makeLogRecord(
        {"name": "meshd.x", "levelname": "INFO", "msg": "remote synced", "created": 0.25, "msecs": 250.0}
    )
    record.cluster = "cluster2"
    record.reason = "two words"
    record.key = "\x1b]0;cilium/\r"  # another cluster's: it commands no terminal
    assert KeyValueFormatter().format(record) == (
        "1970-01-01T00:00:00.250Z INFO meshd.x: remote synced cluster=cluster2 reason='two words' "
        r"key='\x1b]0;cilium/\r'"
    )
