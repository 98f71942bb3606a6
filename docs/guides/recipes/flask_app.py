"""A Flask app with one TTLCache: concurrent misses share one load.

Copy the cache beside this file:
    python -m reference_impl copy ttl_cache vendored
Run it:
    flask --app flask_app run
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass

from flask import Flask, Response, abort, jsonify

from vendored.ttl_cache import TTLCache


@dataclass(frozen=True)
class Report:
    """An answer that is expensive to fetch; frozen, as threads share it."""

    id: str
    verdict: str


def fetch_report(report_id: str) -> Report:
    """Put your query here; it raises LookupError if there is no such report."""
    return Report(report_id, "passed")


def create_app(fetch: Callable[[str], Report] = fetch_report) -> Flask:
    """Make the app and its cache; each worker process has its own."""
    app = Flask(__name__)
    cache = TTLCache[str, Report](default_ttl=60.0, max_size=10_000)

    @app.get("/reports/<report_id>")
    def show(report_id: str) -> Response:
        try:
            report = cache.get_or_load(report_id, lambda: fetch(report_id))
        except LookupError:
            abort(404)
        return jsonify(asdict(report))

    @app.delete("/cache/<report_id>")
    def invalidate(report_id: str) -> Response:
        return jsonify(removed=cache.delete(report_id))

    @app.get("/cache")
    def statistics() -> Response:
        return jsonify(asdict(cache.stats))

    return app
