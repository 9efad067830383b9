"""Configures the log of a gateway from its settings: the format, the files, and the HTTP receiver of the lines."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from api.settings import Settings
from monitoring.logs.configuration import configure_logging
from monitoring.logs.files import LogFiles, LogFileWriter
from monitoring.logs.formats import LogFormat
from monitoring.logs.line_queue import LineQueue
from monitoring.logs.outputs import Output, count_drops, register_queue, report_drops

_MEGABYTE = 1_000_000


def start_logging(settings: Settings) -> None:
    """Configure the log of this process and of its forked child processes."""
    queues = list(_open_queues(settings))
    for queue in queues:
        register_queue(queue)
    configure_logging(
        settings.log_level,
        log_format=_choose_format(settings),
        queues=queues,
        processes=settings.web_concurrency,
        service=settings.service_name,
    )


def find_log_files(settings: Settings) -> LogFiles | None:
    """Return where and how long log files are kept, or None if the log is not written to files."""
    logs = settings.logs
    return None if logs.file is None else LogFiles(logs.file, logs.keep_days, logs.keep_megabytes * _MEGABYTE)


def _choose_format(settings: Settings) -> LogFormat:
    if settings.logs.format is not None:
        return LogFormat(settings.logs.format)
    return LogFormat.CONSOLE if sys.stdout.isatty() else LogFormat.OTEL


def _open_queues(settings: Settings) -> Iterator[LineQueue]:
    files = find_log_files(settings)
    if files is not None:
        yield LogFileWriter(files, report_drops(Output.FILE), count_drops(Output.FILE))
    logs = settings.logs
    if logs.send_url is not None:
        # Only a gateway that sends its log needs an HTTP client.
        from monitoring.logs.sender import LogSender, Receiver

        headers = {name: value.get_secret_value() for name, value in logs.send_headers.items()}
        receiver = Receiver(logs.send_url.get_secret_value(), headers, logs.send_gzip)
        yield LogSender(receiver, report_drops(Output.HTTP), count_drops(Output.HTTP))
