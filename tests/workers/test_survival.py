"""A worker and what breaks around it: hangs, signals, memory, outages, tokens; GPUs and labels."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from studies.errors import InvalidInput, Refused, Unreachable
from studies.protocol import (
    Assignment,
    Device,
    EpochRecord,
    ReleaseRequest,
    ReportRequest,
    ResultRequest,
    TrialRelease,
    TrialResult,
)
from tests.cli.conftest import run as run_command
from tests.workers.fake_trainer import SLOW_BATCH_SECONDS, SLOW_BATCHES
from tests.workers.nvml_double import nvml
from tests.workers.service_double import ServiceDouble, assignment
from tests.workers.test_outbox import taken
from workers.deaths import cause_of_death, oom_kills, says_out_of_memory
from workers.gpus import READ_SECONDS, Gpus, Place, environment, places, used
from workers.labels import read_labels, short_name, with_gpu
from workers.outbox import MESSAGE_BYTES, Outbox, parts_of
from workers.patience import LONGEST_DELAY_SECONDS, LONGEST_RETRY_AFTER_SECONDS, Patience, delay_after

HERE = Path(__file__).parent
HANG_SECONDS = 2.0

START = """
import json, logging, sys
from tests.workers.nvml_double import nvml
from workers import agent, processes, slots
from workers.gpus import Gpus

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
url, trainer, gpus_here, options = sys.argv[1:]
options = json.loads(options)
stand_in = nvml(*json.loads(gpus_here))
agent.Gpus = lambda: Gpus(stand_in)
agent.FLUSH_SECONDS, processes.STACK_SECONDS, agent.STOPPED_SECONDS = 1.0, 0.5, 0.5
if "hangs" in options.get("tasks", []):
    processes.START_SECONDS = slots.START_SECONDS = 0.5
sys.exit(agent.run_agent(url, trainer_command=[sys.executable, trainer], report_interval_seconds=0.1, **options))
"""


class Agent:
    """An agent process on a machine with these GPUs. Leaving the `with` block kills what is left of it."""

    def __init__(self, url: str, *, gpus_here: tuple[str, ...] = (), **options: object) -> None:
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                START,
                url,
                str(HERE / "fake_trainer.py"),
                json.dumps(gpus_here),
                json.dumps(options),
            ],
            cwd=HERE.parents[1],
            env={name: value for name, value in os.environ.items() if not name.startswith(("CUDA_", "TF_", "XLA_"))},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log = ""

    def __enter__(self) -> Agent:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.communicate()

    def end(self) -> int:
        """Have it end, and wait for the exit code."""
        self.process.terminate()
        return self.exit_code()

    def exit_code(self) -> int:
        _, self.log = self.process.communicate(timeout=30.0)
        return self.process.returncode


@pytest.fixture
def service() -> Iterator[ServiceDouble]:
    """A service for one test."""
    double = ServiceDouble()
    double.start()
    yield double
    double.stop()


@pytest.fixture(scope="module")
def served() -> Iterator[ServiceDouble]:
    """A service with a worker of one slot that is quick to see a hang, for all tests that leave the worker as it is."""
    double = ServiceDouble()
    double.start()
    with Agent(double.url, hang_seconds=HANG_SECONDS):
        yield double
    double.stop()


def process_of(service: ServiceDouble, trial: Assignment) -> int:
    """The id of the training process to which a trial was given."""
    (claim,) = service.wait_for(
        lambda: [claim for claim in service.claims if trial in service.given.get(claim.request_id, [])]
    )
    return int(claim.worker.versions["pid"])


def takes_over(service: ServiceDouble, dead: int) -> None:
    """Another training process than this one runs the next trial."""
    following = assignment("quick")
    service.offer(following)
    service.result_of(following)
    assert service.trainer_pid() != dead
    assert not psutil.pid_exists(dead)


# --- a training process that hangs


def test_a_process_that_hangs_is_killed_and_its_trial_says_where_it_was(served: ServiceDouble) -> None:
    trial = assignment("silent")
    served.offer(trial)
    release = served.release_of(trial)
    takes_over(served, process_of(served, trial))
    assert (release.cause, release.reason) == ("crashed", "hung: no batch ended for 2 s")
    assert "most recent call first" in release.log_end
    assert 'fake_trainer.py", line' in release.log_end
    assert " in run\n" in release.log_end


def test_a_process_that_was_stopped_is_killed_too(served: ServiceDouble) -> None:
    trial = assignment("endless")
    served.offer(trial)
    served.reports_of(trial)
    pid = process_of(served, trial)
    os.kill(pid, signal.SIGSTOP)
    release = served.release_of(trial)
    takes_over(served, pid)
    assert (release.cause, release.reason) == ("crashed", "hung: no batch ended for 2 s")
    told = served.epochs_of(trial)
    assert told == list(range(len(told)))


def test_batches_that_end_are_progress_though_no_epoch_does(served: ServiceDouble) -> None:
    assert SLOW_BATCHES * SLOW_BATCH_SECONDS > HANG_SECONDS
    trial = assignment("slow")
    served.offer(trial)
    assert served.result_of(trial).outcome == "completed"


def test_an_agent_that_was_stopped_with_its_processes_kills_none(service: ServiceDouble) -> None:
    trial = assignment("endless")
    service.offer(trial)
    with Agent(service.url, hang_seconds=HANG_SECONDS) as agent:
        before = len(service.reports_of(trial))
        all_processes = [agent.process.pid, service.trainer_pid()]
        for pid in all_processes:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(HANG_SECONDS + 1.5)
        # The agent first, so that it looks at a process that has still said nothing.
        for pid in all_processes:
            os.kill(pid, signal.SIGCONT)
            time.sleep(0.5)
        service.reports_of(trial, at_least=before + 3)
        assert agent.end() == 0
    assert {(release.token, release.cause) for release in service.releases} == {(trial.token, "preempted")}
    assert "nothing was heard" not in agent.log


def test_a_process_that_hangs_before_it_is_ready_ends_the_worker_with_advice(service: ServiceDouble) -> None:
    with Agent(service.url, hang_seconds=0.5, tasks=["hangs"]) as agent:
        assert agent.exit_code() == 1
    assert "TrainerFailed: the training process was silent for 0.5 s before it was ready, 3 times in a row" in agent.log
    assert "killing the training process (--hang-seconds)" in agent.log


# --- a training process that dies, or runs out of memory


def test_a_segmentation_fault_is_named_and_a_fresh_process_takes_over(served: ServiceDouble) -> None:
    trial = assignment("endless")
    served.offer(trial)
    served.reports_of(trial)
    pid = process_of(served, trial)
    os.kill(pid, signal.SIGSEGV)
    assert served.release_of(trial).reason == "the training process was killed by SIGSEGV, a segmentation fault"
    takes_over(served, pid)


def test_after_an_exception_for_lack_of_memory_a_fresh_process_takes_over(served: ServiceDouble) -> None:
    trial = assignment("out-of-memory")
    served.offer(trial)
    release = served.release_of(trial)
    takes_over(served, process_of(served, trial))
    assert release.cause == "crashed"
    assert release.reason.startswith("out of memory: ResourceExhaustedError")
    assert release.log_end == "the allocator's last words\n\nTraceback ... OOM"


@pytest.mark.parametrize(
    ("code", "before", "after", "words"),
    [
        (3, 0, 0, "the training process exited with code 3"),
        (-9, 4, 5, "out of memory: the kernel killed the training process (SIGKILL)"),
        (-9, 4, 4, "the training process was killed by SIGKILL, and not by the kernel for lack of memory"),
        (-9, None, 5, "the training process was killed by SIGKILL; the system may have run out of memory"),
        (-11, 4, 5, "the training process was killed by SIGSEGV, a segmentation fault"),
        (-7, 0, 0, "the training process was killed by SIGBUS, a bus error: a full disk or /dev/shm does this"),
        (-15, 0, 0, "the training process was killed by SIGTERM"),
        (-40, 0, 0, "the training process was killed by signal 40"),
    ],
)
def test_how_a_process_died_is_said_in_words(code: int, before: int | None, after: int | None, words: str) -> None:
    assert cause_of_death(code, before, after) == words


def test_the_kernels_kills_for_memory_are_counted_in_the_workers_own_group(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    assert oom_kills(tmp_path) is None
    (tmp_path / "proc/self/cgroup").write_text("1:cpu:/\n0::/system.slice/worker.service\n")
    assert oom_kills(tmp_path) is None
    group = tmp_path / "sys/fs/cgroup/system.slice/worker.service"
    group.mkdir(parents=True)
    (group / "memory.events").write_text("low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n")
    assert oom_kills(tmp_path) == 2


class ResourceExhaustedError(Exception):
    """Named as TensorFlow's."""


def _raised(error: Exception, cause: Exception | None = None) -> Exception:
    try:
        raise error from cause
    except Exception as caught:  # noqa: BLE001 - whatever it is, it is what the test asks for
        return caught


def test_exceptions_that_say_that_memory_ran_out_are_known() -> None:
    with pytest.raises(MemoryError) as numpys_own:
        np.zeros(2**57)
    assert says_out_of_memory(numpys_own.value)
    assert says_out_of_memory(ResourceExhaustedError("OOM when allocating tensor with shape[1]"))
    assert says_out_of_memory(RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8 bytes"))
    assert says_out_of_memory(RuntimeError("INTERNAL: failed to allocate: CUDA_ERROR_OUT_OF_MEMORY: out of memory"))
    assert says_out_of_memory(_raised(ValueError("the layer failed"), MemoryError()))
    assert not says_out_of_memory(ValueError("shapes (3,) and (4,) do not match"))


# --- a service that is away, or does not let the worker in


def test_an_outage_of_ten_minutes_loses_no_epoch_and_no_order_and_no_message_is_too_long() -> None:
    trials = [assignment(f"task-{number}") for number in range(4)]
    outbox = Outbox("worker", report_interval=1.0)
    for trial in trials:
        outbox.hold(trial, now=0.0)
    # An epoch every tenth of a second in each of four slots; one trial ends with a result, one crashes.
    sent = 6000
    for number in range(sent):
        for trial in trials:
            metrics: dict[str, float | None] = {"loss": 1 / (number + 1), "val_loss": None, "val_accuracy": 0.123456789}
            record = EpochRecord(epoch=number, metrics=metrics, lr_first=0.1, lr_last=0.1 / 3, seconds=0.1)
            outbox.add(trial.token, record)
    finished, crashed = trials[0], trials[3]
    outbox.end(TrialResult(trial_id=finished.trial_id, token=finished.token, outcome="completed", train_seconds=600.0))
    outbox.end(TrialRelease(trial_id=crashed.trial_id, token=crashed.token, cause="crashed"))
    told: dict[str, list[int]] = {trial.token: [] for trial in trials}
    ends: list[str] = []
    messages, now = 0, 600.0
    while not outbox.is_clear:
        message = outbox.next(now)
        if message is None:
            now = outbox.next_at()
            continue
        messages += 1
        assert len(message.model_dump_json()) < 1.1 * MESSAGE_BYTES
        for part in parts_of(message):
            if isinstance(part, TrialRelease):
                assert isinstance(message, ReleaseRequest)
            else:
                told[part.token] += [epoch.epoch for epoch in part.epochs]
            if not isinstance(message, ReportRequest):
                assert told[part.token] == list(range(sent))
                ends.append(part.token)
            else:
                assert part.token not in ends
        outbox.acknowledge(message, taken(message), now)
        now += 0.2
    assert all(epochs == list(range(sent)) for epochs in told.values())
    assert set(ends) == {finished.token, crashed.token}
    assert messages <= 10
    assert now < 610.0


def test_many_results_at_once_go_in_messages_of_bounded_length() -> None:
    trials = [assignment("a") for _ in range(100)]
    outbox = Outbox("worker", report_interval=1.0)
    for trial in trials:
        outbox.hold(trial, now=0.0)
        outbox.end(
            TrialResult(
                trial_id=trial.trial_id, token=trial.token, outcome="failed", train_seconds=1.0, reason="x" * 20_000
            )
        )
    told: list[str] = []
    while (message := outbox.next(1.0)) is not None:
        assert isinstance(message, ResultRequest)
        assert len(message.model_dump_json()) < 1.1 * MESSAGE_BYTES
        told += [part.token for part in message.trials]
        outbox.acknowledge(message, taken(message), 1.0)
    assert told == [trial.token for trial in trials]


@pytest.mark.parametrize(
    ("failures", "retry_after", "chance", "seconds"),
    [
        (1, None, 0.0, 0.125),
        (1, None, 1.0, 0.25),
        (3, None, 1.0, 1.0),
        (1000, None, 1.0, LONGEST_DELAY_SECONDS),
        (1, 8.0, 0.0, 8.0),
        (1, 8.0, 1.0, 10.0),
        (1000, 2.0, 1.0, LONGEST_DELAY_SECONDS),
        (1, float("inf"), 0.0, LONGEST_RETRY_AFTER_SECONDS),
    ],
)
def test_tries_are_spread_and_a_service_that_names_a_time_is_given_it(
    failures: int, retry_after: float | None, chance: float, seconds: float
) -> None:
    assert delay_after(failures, retry_after, chance) == pytest.approx(seconds)


def test_a_worker_tries_again_before_its_shortest_lease_runs_out() -> None:
    outbox = Outbox("worker", 1.0)
    assert outbox.heartbeat_seconds == float("inf")
    for seconds in (60.0, 12.0, 30.0):
        outbox.hold(assignment("digits", lease_seconds=seconds), 0.0)
    assert outbox.heartbeat_seconds == 4.0
    assert delay_after(1000, None, 1.0, outbox.heartbeat_seconds) == 4.0
    assert delay_after(1000, 8.0, 0.0, outbox.heartbeat_seconds) == 8.0


def test_the_time_that_a_refusal_names_is_the_last_ones() -> None:
    def refused(seconds: float | None) -> None:
        raise Refused(503, {"detail": "the database is away"}, seconds)

    def unreachable() -> None:
        raise Unreachable("no answer")

    patience = Patience()
    assert patience.attempt(lambda: refused(100.0)) is None
    assert 100.0 <= patience.delay() <= 125.0
    assert patience.attempt(unreachable) is None
    assert patience.delay() <= 0.5
    with pytest.raises(Refused):
        patience.attempt(lambda: (_ for _ in ()).throw(Refused(403, {})))


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_that_is_refused_ends_the_worker_which_says_what_is_left(service: ServiceDouble, status: int) -> None:
    trial = assignment("endless")
    service.offer(trial)
    with Agent(service.url) as agent:
        service.reports_of(trial)
        service.trouble = "error 401" if status == 401 else "error 403"
        assert agent.exit_code() == 1
    assert f"NotLetIn: out of order\nThe service does not take this worker's token, or not any more ({status})." in (
        agent.log
    )
    assert "Make a token (lr-arena token create NAME --scope work)" in agent.log
    assert "the service could not be told: 1 trials stay on lease until it runs out" in agent.log


# --- GPUs


def test_the_driver_tells_of_the_gpus_at_most_every_few_seconds() -> None:
    library = nvml("NVIDIA H200", "NVIDIA H200")
    gpus = Gpus(library)
    facts = gpus.read(now=100.0)
    assert facts[1] == Device(
        index=1,
        name="NVIDIA H200",
        memory_total_bytes=143 * 2**30,
        memory_used_bytes=2 * 2**30,
        utilization_percent=15,
    )
    gpus.read(now=100.0 + READ_SECONDS / 2)
    assert library.reads == [0, 1]
    gpus.read(now=100.0 + READ_SECONDS)
    assert library.reads == [0, 1, 0, 1]
    gpus.narrow([1])
    assert [device.index for device in gpus.read(now=106.0)] == [1]


def test_without_a_driver_there_are_no_gpus_and_a_lost_one_leaves_the_others() -> None:
    assert Gpus(nvml(driver=False)).read(now=0.0) == []
    assert [device.index for device in Gpus(nvml("a", "b", "c", lost=1)).read(now=0.0)] == [0, 2]
    (part,) = Gpus(nvml("NVIDIA A100-SXM4-40GB MIG 1g.5gb", partitioned=True)).read(now=0.0)
    assert part.utilization_percent is None
    assert part.memory_used_bytes == 2**30


@pytest.mark.parametrize(
    ("options", "visible", "expected"),
    [
        ({}, None, [Place()]),
        ({"slots": 2}, None, [Place(shared=True)] * 2),
        ({"gpus": "none", "slots": 2}, None, [Place("none", shared=True)] * 2),
        ({"gpus": "all"}, None, [Place(0), Place(1), Place(2)]),
        ({"gpus": "all"}, "2,0", [Place(2), Place(0)]),
        ({"gpus": "all"}, "1,-1,0", [Place(1)]),
        ({"gpus": " 2, 0 "}, None, [Place(2), Place(0)]),
        ({"gpus": "1", "slots_per_gpu": 2}, "0,1", [Place(1, shared=True)] * 2),
    ],
)
def test_each_slot_has_its_place(options: dict[str, Any], visible: str | None, expected: list[Place]) -> None:
    chosen = {"gpus": None, "slots_per_gpu": None, "slots": None, **options}
    assert places(**chosen, known=[0, 1, 2], visible=visible) == expected


@pytest.mark.parametrize(
    ("options", "visible", "words"),
    [
        ({"gpus": "0", "slots": 2}, None, "--slots: goes with --gpus none alone"),
        ({"slots_per_gpu": 2}, None, "--slots-per-gpu: goes with --gpus"),
        ({"gpus": "none", "slots_per_gpu": 2}, None, "--slots-per-gpu: goes with --gpus"),
        ({"gpus": "all", "slots_per_gpu": 0}, None, "--slots-per-gpu: must be from 1 to 100 (got 0)"),
        ({"gpus": "0,7"}, None, "--gpus: there is no GPU 7 here; there are: 0, 1, 2 (got '0,7')"),
        ({"gpus": "2"}, "0,1", "--gpus: there is no GPU 2 here; there are: 0, 1"),
        ({"gpus": "0,0"}, None, "--gpus: names a GPU twice"),
        ({"gpus": "first"}, None, "--gpus: must be all, none, or indices such as 0,1 (got 'first')"),
        ({"gpus": "all"}, "", "--gpus: no NVIDIA GPU is found here, with CUDA_VISIBLE_DEVICES=''"),
        ({"gpus": "all"}, "GPU-8f6d", "CUDA_VISIBLE_DEVICES: must hold indices, such as 0,1, to go with --gpus"),
    ],
)
def test_places_that_cannot_be_are_refused_by_name(options: dict[str, Any], visible: str | None, words: str) -> None:
    chosen = {"gpus": None, "slots_per_gpu": None, "slots": None, **options}
    with pytest.raises(InvalidInput) as caught:
        places(**chosen, known=[0, 1, 2], visible=visible)
    assert words in str(caught.value)


def test_a_worker_tells_of_the_gpus_that_it_may_use() -> None:
    assert used([Place(2), Place(0), Place(2)], [0, 1, 2], None) == [0, 2]
    assert used([Place("none")], [0, 1, 2], None) == []
    assert used([Place()], [0, 1, 2], "1") == [1]
    assert used([Place()], [0, 1, 2], "GPU-8f6d") == [0, 1, 2]


def test_a_training_process_sees_its_gpu_alone_and_shares_its_memory() -> None:
    of_worker = {"CUDA_VISIBLE_DEVICES": "0,1", "PATH": "/bin"}
    alone, sharing = environment(Place(1), of_worker), environment(Place(1, shared=True), of_worker)
    assert alone == {
        "PATH": "/bin",
        "CUDA_VISIBLE_DEVICES": "1",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        "MALLOC_TOP_PAD_": "67108864",
    }
    assert sharing == {**alone, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    assert environment(Place("none"), of_worker)["CUDA_VISIBLE_DEVICES"] == "-1"
    assert environment(Place(), of_worker) == {**of_worker, "MALLOC_TOP_PAD_": "67108864"}
    said = {"MALLOC_TOP_PAD_": "0", "TF_FORCE_GPU_ALLOW_GROWTH": "false", "XLA_PYTHON_CLIENT_PREALLOCATE": "true"}
    assert said.items() <= environment(Place(0, shared=True), said).items()


def test_a_worker_with_gpus_has_a_process_per_slot_and_tells_of_them_with_claims_and_reports(
    service: ServiceDouble,
) -> None:
    trials = [assignment("environment") for _ in range(4)]
    long = assignment("silent", lease_seconds=0.3)
    with Agent(
        service.url, gpus_here=("NVIDIA H200",) * 3, gpus="0,2", slots_per_gpu=2, labels=["pool=night"]
    ) as agent:
        service.wait_for(lambda: service.claims, seconds=30.0)
        service.offer(*trials)
        seen = [json.loads(service.result_of(trial).reason) for trial in trials]
        service.offer(long)
        report = service.wait_for(lambda: [report for report in service.reports if report.devices])[0]
        service.commands[long.trial_id] = "stop"
        service.result_of(long)
        assert agent.end() == 0
    assert {environment["CUDA_VISIBLE_DEVICES"] for environment in seen} <= {"0", "2"}
    assert all(environment["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false" for environment in seen)
    worker = service.claims[0].worker
    assert worker.slots == 4
    assert [device.index for device in worker.devices] == [0, 2]
    assert worker.labels == {"pool": "night", "gpu": "h200"}
    assert report.devices == worker.devices
    assert sum(bool(report.devices) for report in service.reports) == 1


def test_a_backend_that_sees_no_gpu_ends_a_worker_that_was_given_one(service: ServiceDouble) -> None:
    with Agent(service.url, gpus_here=("Tesla T4",), gpus="all", tasks=["blind"]) as agent:
        assert agent.exit_code() == 1
    assert "TrainerFailed: the driver tells of GPU 0, but none sees no GPU" in agent.log
    assert not service.claims


def test_the_command_refuses_options_that_cannot_be() -> None:
    both = run_command("worker", "--gpus", "0", "--slots", "2")
    assert (both.exit_code, "--slots: goes with --gpus none alone" in both.output) == (2, True)
    label = run_command("worker", "--label", "gpu")
    assert (label.exit_code, "--label: must be KEY=VALUE, such as gpu=h200 (got 'gpu')" in label.output) == (2, True)


# --- labels


@pytest.mark.parametrize(
    ("product", "name"),
    [
        ("NVIDIA H200", "h200"),
        ("NVIDIA H200 NVL", "h200"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", "h100"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA A100-PCIE-40GB", "a100"),
        ("NVIDIA A100 80GB PCIe", "a100"),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "a100-mig-1g.5gb"),
        ("NVIDIA GH200 480GB", "gh200"),
        ("NVIDIA B200", "b200"),
        ("NVIDIA A10G", "a10g"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA RTX A6000", "rtx-a6000"),
        ("NVIDIA RTX 6000 Ada Generation", "rtx-6000-ada"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "rtx-pro-6000-blackwell"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("NVIDIA GeForce RTX 3080 Ti", "rtx-3080-ti"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "rtx-4090-laptop"),
        ("NVIDIA TITAN RTX", "titan-rtx"),
        ("GeForce GTX 1080 Ti", "gtx-1080-ti"),
        ("Quadro RTX 8000", "rtx-8000"),
        ("Tesla T4", "t4"),
        ("Tesla V100-SXM2-16GB", "v100"),
        ("Tesla P100-PCIE-16GB", "p100"),
        ("Orin (nvgpu)", "orin-nvgpu"),
        ("NVIDIA", ""),
    ],
)
def test_gpus_have_short_names(product: str, name: str) -> None:
    assert short_name(product) == name


def test_the_kind_of_the_gpus_is_a_label_unless_one_is_given_or_they_differ() -> None:
    h200, a100 = Device(index=0, name="NVIDIA H200"), Device(index=1, name="NVIDIA A100-SXM4-80GB")
    assert with_gpu({"pool": "night"}, [h200, h200]) == {"pool": "night", "gpu": "h200"}
    assert with_gpu({"gpu": "mine"}, [h200]) == {"gpu": "mine"}
    assert with_gpu({}, [h200, a100]) == with_gpu({}, []) == {}


def test_labels_are_read_or_refused_by_name() -> None:
    assert read_labels(["gpu=h200", "rack.unit=B-7_2"]) == {"gpu": "h200", "rack.unit": "B-7_2"}
    for text, words in [
        ("gpu", "must be KEY=VALUE"),
        ("gpu=", "the value must be 1 to 63 letters"),
        ("a b=c", "the key must be 1 to 63 letters"),
        ("a=b=c", "the value must be"),
        ("a=b\n", "the value must be"),
        ("a=" + "x" * 64, "the value must be"),
        ("backend=jax", "the backend is no label"),
    ]:
        with pytest.raises(InvalidInput, match="--label: .*" + words):
            read_labels([text])
    with pytest.raises(InvalidInput, match="gpu is already 'a'"):
        read_labels(["gpu=a", "gpu=b"])
