"""The table of Celery's settings and options, held against the real package."""

from __future__ import annotations

import warnings

import pytest
from celery.app import defaults
from celery.app.task import Task as CeleryTask
from celery.bin.worker import worker as celery_worker
from click.testing import CliRunner

from aioretryq import ConfigError, TaskQueue
from aioretryq.celery_settings.names import OLD_NAMES, canonical
from aioretryq.celery_settings.options import RESULT_OPTIONS, TASK_OPTIONS, TRANSPORT_OPTIONS, WORKER_OPTIONS
from aioretryq.celery_settings.table import CELERY_SETTINGS, Verdict
from aioretryq.celery_settings.translation import says_nothing, verdict
from aioretryq.cli import main as our_command
from aioretryq.cli.worker import worker as our_worker
from aioretryq.config import HINTS
from aioretryq.task_options import FROM_SETTINGS, OPTIONS

URL = "redis://broker/1"


class TestTheTable:
    def test_no_setting_of_celery_is_missing(self) -> None:
        assert set(defaults.DEFAULTS) <= set(CELERY_SETTINGS)
        read_but_not_listed = set(CELERY_SETTINGS) - set(defaults.DEFAULTS)
        assert read_but_not_listed == {
            "redis_backend_credential_provider",
            "redis_backend_health_check_interval",
            "redis_client_name",
            "result_backend_thread_safe",
            "result_chord_ordered",
        }

    def test_its_defaults_are_celerys(self) -> None:
        assert {name: CELERY_SETTINGS[name].default for name in defaults.DEFAULTS} == defaults.DEFAULTS

    def test_its_old_names_are_celerys(self) -> None:
        assert {old: OLD_NAMES.get(old) for old in defaults._TO_NEW_KEY} == defaults._TO_NEW_KEY

    def test_no_name_means_two_things(self) -> None:
        for old, name in OLD_NAMES.items():
            assert canonical(old) == canonical(old, "MYAPP") == name

    def test_what_is_taken_exists_and_what_is_left_out_does_not(self) -> None:
        for name, row in CELERY_SETTINGS.items():
            if row.verdict is Verdict.SAME:
                assert name in HINTS, f"{name} is said to be taken"
            if name in HINTS:
                assert verdict(row) in (Verdict.SAME, Verdict.TRANSLATED, Verdict.BETTER)
            assert row.note or verdict(row) is Verdict.SAME, f"{name}: say how, why, or what to do instead"
            assert not row.note or row.note.endswith((".", ")")), name

    def test_celerys_defaults_are_nothing_to_complain_about(self) -> None:
        assert all(says_nothing(row, row.default) for row in CELERY_SETTINGS.values())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            TaskQueue.from_celery({name: row.default for name, row in CELERY_SETTINGS.items()} | {"broker_url": URL})

    def test_no_option_of_a_task_is_missing(self) -> None:
        assert {name for name, _ in CeleryTask.from_config} | set(_ATTRIBUTES) <= set(TASK_OPTIONS) | {
            "store_eager_result"
        }
        assert set(_ATTRIBUTES) <= set(dir(CeleryTask))
        ours = {*OPTIONS, *FROM_SETTINGS, "name", "bind", "base"}
        assert {name for name, row in TASK_OPTIONS.items() if row.verdict is Verdict.SAME} <= ours

    @pytest.mark.parametrize("option", sorted(set(TASK_OPTIONS) - {*OPTIONS, *FROM_SETTINGS, "name", "bind", "base"}))
    def test_what_a_task_cannot_have_is_refused_with_what_to_do(self, option: str) -> None:
        with pytest.raises(ConfigError, match=f"{option}.*not supported; remove it") as caught:
            TaskQueue("memory://").task(**{option: True})(lambda: None)
        assert TASK_OPTIONS[option].note in str(caught.value)

    def test_no_option_of_the_worker_is_missing(self) -> None:
        told = {flag: row for names, row in WORKER_OPTIONS.items() for flag in names.split(", ")}
        assert {flag for option in celery_worker.params for flag in option.opts} <= set(told)
        ours = {flag for option in our_worker.params for flag in option.opts}
        taken = {row.name for row in told.values() if row.verdict is Verdict.SAME}
        assert all(not ours.isdisjoint(names.split(", ")) for names in taken)


_ATTRIBUTES = """max_retries default_retry_delay rate_limit ignore_result trail send_events serializer time_limit
store_errors_even_if_ignored soft_time_limit backend track_started acks_late acks_on_failure acks_on_timeout throws
acks_on_failure_or_timeout reject_on_worker_lost retry_on_worker_lost expires priority resultrepr_maxsize typing
Strategy Request shadow_name bind name on_replace""".split()


def test_the_command_line_says_what_becomes_of_each() -> None:
    shown = CliRunner().invoke(our_command, ["settings", "--celery"])
    assert shown.exit_code == 0
    first, *others = shown.output.split("\n\n")
    assert [line.split()[0] for line in first.splitlines()] == ["Settings", *CELERY_SETTINGS]
    assert [table.splitlines()[0] for table in others] == [
        "Keys of broker_transport_options",
        "Keys of result_backend_transport_options",
        "Options of a task",
        "Options of celery worker",
    ]
    for table, rows in zip(others, (TRANSPORT_OPTIONS, RESULT_OPTIONS, TASK_OPTIONS, WORKER_OPTIONS), strict=True):
        assert len(table.splitlines()) == 1 + len(rows)
