"""What a server says that is no answer: every kind after which the same row is asked for again."""

import json

from tests.language_model.remote.scripted_server import RESETS, Reply, answer


def spoiled(change) -> dict:
    made = answer("no")
    change(made)
    return made


RETRIED = {
    "http_429": Reply(b'{"error": {"message": "slow down"}}', status=429),
    "http_500": Reply(b'{"error": {"message": "oops"}}', status=500),
    "http_503": Reply(b"<html>no JSON at all</html>", status=503),
    "connection": RESETS,
    "connection/cut": Reply(json.dumps(answer("no")).encode(), cut=20),
    "not_json/cut": Reply(json.dumps(answer("no")).encode()[:-20]),
    "not_json/twice": Reply(json.dumps(answer("no")).encode() * 2),
    "not_json/html": Reply(b"<html>welcome</html>"),
    "not_json/deep": Reply(b"[" * 100_000),
    "no_choices": spoiled(lambda made: made["choices"].clear()),
    "no_choices/error": {"error": {"message": "overloaded", "code": 529}},
    "no_choices/list": [],
    "several_choices": spoiled(lambda made: made["choices"].append(made["choices"][0])),
    "wrong_fields/no_finish": spoiled(lambda made: made["choices"][0].pop("finish_reason")),
    "wrong_fields/null": spoiled(lambda made: made["choices"][0].update(finish_reason=None)),
    "wrong_fields/abort": spoiled(lambda made: made["choices"][0].update(finish_reason="abort")),
    "wrong_fields/surrogate": Reply(json.dumps(answer("\ud800")).encode()),
    "wrong_fields/number": spoiled(lambda made: made["choices"][0]["message"].update(content=3)),
    "wrong_fields/no_message": spoiled(lambda made: made["choices"][0].pop("message")),
}
