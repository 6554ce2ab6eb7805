import deepl.http_client
import pytest
from deepl_server import Server

from moejax.mt import deepl_client


@pytest.fixture
def server(monkeypatch):
    """DeepL's protocol over a local socket; the client's waits before a retry are short."""
    monkeypatch.setattr("deepl.http_client._BackoffTimer.BACKOFF_INITIAL", 0.01)
    monkeypatch.delenv(deepl_client.KEY_VARIABLE, raising=False)
    monkeypatch.delenv(deepl_client.SERVER_VARIABLE, raising=False)
    monkeypatch.setattr(deepl.http_client, "min_connection_timeout", 10.0)  # `_connect` makes it longer
    running = Server()
    yield running
    running.close()
