"""A user's server: `python serve_faster_whisper.py JSON`, the route of OpenAI's audio API over faster-whisper.

JSON: model (a folder), language, compute_type, batch_size (of `BatchedInferencePipeline`, within a recording), threads.
One request after the other; the others wait. Prints its address. Imports nothing of moejax: this process is timed.
"""

import email.parser
import email.policy
import http.server
import io
import json
import sys
import threading

from faster_whisper import BatchedInferencePipeline, WhisperModel


class Transcriptions(http.server.BaseHTTPRequestHandler):
    """POST of a form with the field `file`; answers {"text"}."""

    def do_POST(self):
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        body = self.rfile.read(int(self.headers["Content-Length"]))
        form = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
        parts = {part.get_param("name", header="Content-Disposition"): part for part in form.iter_parts()}
        sound = io.BytesIO(parts["file"].get_payload(decode=True))
        with self.server.turn:
            segments, _ = self.server.model.transcribe(sound, **self.server.options)
            text = "".join(segment.text for segment in segments)
        answer = json.dumps({"text": text.strip()}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        """Nothing."""


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 1024
    daemon_threads = True


def main(asked):
    model = WhisperModel(asked["model"], compute_type=asked["compute_type"], cpu_threads=asked["threads"])
    server = Server(("127.0.0.1", 0), Transcriptions)
    server.model, server.turn = BatchedInferencePipeline(model), threading.Lock()
    server.options = {"language": asked["language"], "beam_size": 1, "batch_size": asked["batch_size"]}
    print(f"http://127.0.0.1:{server.server_port}/v1", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
