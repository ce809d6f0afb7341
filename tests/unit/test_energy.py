"""Energy: the invariants of its card, counters read from real files and from a stand-in for NVML, and the model."""

from __future__ import annotations

import json
import logging
import math
import multiprocessing
import os
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from contract import nets
from contract.quadratic import build, setting
from heterobench import energy
from heterobench.config.schema import ScheduleFile
from heterobench.energy import model, nvml, rapl, units
from heterobench.energy.sampling import Sampled
from heterobench.executor.workers import Workers
from heterobench.records import record
from heterobench.records.record import Record
from heterobench.records.recorder import Recorder
from heterobench.training import compute, train

SPAN = 262_143_328_850  # uJ, as packages have it


class Machine:
    """A tree of files like /sys/class/powercap."""

    def __init__(self, root, packages=1):
        self.root = root
        for number in range(packages):
            self.zone(f"intel-rapl:{number}", f"package-{number}")
            self.zone(f"intel-rapl:{number}:0", "core")

    def zone(self, zone, name, energy=1000, span=SPAN, tdp=None):
        folder = self.root / zone
        folder.mkdir(parents=True)
        (folder / "name").write_text(f"{name}\n")
        (folder / "max_energy_range_uj").write_text(f"{span}\n")
        self.set(zone, energy)
        if tdp is not None:
            for index, (limit, watts) in enumerate([("short_term", 2 * tdp), ("long_term", tdp)]):
                (folder / f"constraint_{index}_name").write_text(f"{limit}\n")
                (folder / f"constraint_{index}_max_power_uw").write_text(f"{int(watts * 1e6)}\n")

    def set(self, zone, energy):
        (self.root / zone / "energy_uj").write_text(f"{energy}\n")


class Nvml:
    """The functions of pynvml that are used, over a GPU with a counter (mJ) and a power (mW)."""

    class NVMLError(Exception):
        pass

    def __init__(self, counter=True, present="GPU-abc", starts=True):
        self.counter, self.present, self.starts = counter, present, starts
        self.millijoules, self.milliwatts, self.open, self.broken = 5_000_000, 100_000, 0, False

    def nvmlInit(self):
        if not self.starts:
            raise self.NVMLError("driver not loaded")
        self.open += 1

    def nvmlShutdown(self):
        self.open -= 1

    def nvmlDeviceGetHandleByUUID(self, uuid):
        if uuid != self.present:
            raise self.NVMLError("not found")
        return uuid

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, handle):
        assert handle.startswith("MIG-")
        return "GPU-parent"

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        assert handle.startswith("GPU-")
        if not self.counter or self.broken:
            raise self.NVMLError("not supported")
        return self.millijoules

    def nvmlDeviceGetPowerUsage(self, handle):
        if self.broken:
            raise self.NVMLError("GPU is lost")
        return self.milliwatts


@pytest.fixture
def gpu(monkeypatch):
    """torch's description of a GPU, where there is none."""
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="abc"))


@pytest.fixture
def meter():
    """Opens meters and closes them in the end."""
    opened = []

    def make(made):
        opened.append(made)
        return made

    yield make
    for each in opened:
        each.close()


# the card's invariants ----------------------------------------------------------------------------------------------


def test_constant_power_is_power_times_time_to_one_percent(meter):
    library, began = Nvml(counter=False), time.monotonic()
    gpu = meter(nvml.meter("abc", library))
    time.sleep(0.4)
    found, took = gpu.joules(), time.monotonic() - began
    assert found == pytest.approx(100 * took, rel=0.01)


def test_constant_power_is_exact_on_an_exact_clock():
    now = [0.0]
    look = nvml._sampled(Nvml(counter=False), "GPU-abc", lambda: now[0])
    total = 0.0
    for step in (0.1, 2.5, 0.4):
        now[0] += step
        total += look()
    assert total == pytest.approx(100 * 3.0, rel=1e-12)


def test_trapezoid_is_exact_on_a_linear_ramp():
    """P = 10 + 4 t over uneven samples: 10 T + 2 T^2."""
    times = [0.0, 0.1, 0.35, 1.0, 2.5, 3.0]
    assert units.trapezoid([10 + 4 * t for t in times], times) == pytest.approx(10 * 3 + 2 * 9, rel=1e-14)
    now, library = [0.0], Nvml(counter=False)
    library.milliwatts = 10_000
    look, total = nvml._sampled(library, "GPU-abc", lambda: now[0]), 0.0
    for now[0] in times[1:]:
        library.milliwatts = 1000 * (10 + 4 * now[0])
        total += look()
    assert total == pytest.approx(48, rel=1e-12)


def test_rapl_wrap_around_is_15_microjoules(tmp_path, meter):
    assert rapl.advanced(SPAN - 10, 5, SPAN) == 15
    machine = Machine(tmp_path)
    machine.set("intel-rapl:0", SPAN - 10)
    sockets = meter(rapl.meter(tmp_path))
    machine.set("intel-rapl:0", 5)
    assert sockets.joules() == pytest.approx(15e-6, rel=1e-12)
    machine.set("intel-rapl:0", SPAN - 1)
    assert sockets.joules() == pytest.approx((15 + SPAN - 6) * 1e-6, rel=1e-12)
    machine.set("intel-rapl:0", 3)  # and a second time round
    assert sockets.joules() == pytest.approx((15 + SPAN - 6 + 4) * 1e-6, rel=1e-12)


def test_energy_adds_up_over_disjoint_windows_and_never_falls(tmp_path, meter):
    machine, counters = Machine(tmp_path, packages=2), {"intel-rapl:0": 1000, "intel-rapl:1": SPAN - 4_000_000}
    machine.set("intel-rapl:1", counters["intel-rapl:1"])
    whole, windows, seen = meter(rapl.meter(tmp_path)), 0.0, [0.0]
    for step in range(1, 6):
        window = meter(rapl.meter(tmp_path))
        for zone in counters:
            counters[zone] = (counters[zone] + step * 1_300_000) % SPAN
            machine.set(zone, counters[zone])
        windows += window.joules()
        seen.append(whole.joules())
    assert seen == sorted(seen)
    assert windows == pytest.approx(seen[-1], rel=1e-12)
    assert seen[-1] == pytest.approx(2 * 15 * 1.3, rel=1e-12)


def test_net_energy_is_at_most_the_total_and_adds_up():
    assert units.net(100.0, 5.0, 4.0) == 80.0
    assert units.net(100.0, 0.0, 1e9) == 100.0
    parts = [(30.0, 2.0), (70.0, 3.0)]
    net = [units.net(total, 7.0, seconds) for total, seconds in parts]
    assert all(own <= total for own, (total, _) in zip(net, parts, strict=True))
    assert sum(net) == pytest.approx(units.net(100.0, 7.0, 5.0))
    for power, seconds in [(-1.0, 1.0), (1.0, -1.0)]:
        with pytest.raises(ValueError, match="at least 0"):
            units.net(1.0, power, seconds)


def test_kilowatt_hours_come_back_as_the_joules():
    assert units.kilowatt_hours(3.6e6) == 1.0
    for joules in (0.0, 1.0, 12345.678, 9.9e9):
        assert units.joules(units.kilowatt_hours(joules)) == pytest.approx(joules, rel=1e-15)


def test_carbon_is_linear_in_intensity_and_in_energy():
    assert units.emissions(3.6e6, 0.4) == pytest.approx(0.4)
    assert units.emissions(7.2e6, 0.4) == pytest.approx(2 * units.emissions(3.6e6, 0.4), rel=1e-15)
    assert units.emissions(3.6e6, 0.8) == pytest.approx(2 * units.emissions(3.6e6, 0.4), rel=1e-15)
    assert units.emissions(3.6e6, 0.4, pue=1.5) == pytest.approx(0.6)
    with pytest.raises(ValueError, match="pue at least 1"):
        units.emissions(1.0, 0.4, pue=0.9)
    with pytest.raises(TypeError):
        units.emissions(1.0)  # no country is the default


def test_intelligence_per_watt():
    assert units.intelligence_per_watt(0.9, 30.0) == pytest.approx(0.03)
    with pytest.raises(ValueError, match="above 0"):
        units.intelligence_per_watt(0.9, 0.0)


def test_proxy_energy_is_linear_in_operations_and_bytes():
    assert units.proxy(2e9, 1e6, 1e-11, 1e-7) == pytest.approx(0.02 + 0.1)
    assert units.proxy(4e9, 2e6, 1e-11, 1e-7) == 2 * units.proxy(2e9, 1e6, 1e-11, 1e-7)
    with pytest.raises(ValueError, match="at least 0"):
        units.proxy(1, 1, -1e-11, 0)


def test_trapezoid_refuses_what_is_no_series():
    for watts, times in [([1, 2], [0]), ([1, 2], [1, 0])]:
        with pytest.raises(ValueError, match="as many and ascending"):
            units.trapezoid(watts, times)


# RAPL: files --------------------------------------------------------------------------------------------------------


def test_packages_only_neither_their_parts_nor_the_platform(tmp_path, meter):
    machine = Machine(tmp_path, packages=2)
    machine.zone("intel-rapl:2", "psys")
    machine.zone("intel-rapl-mmio:0", "package-0")
    (tmp_path / "intel-rapl").mkdir()
    sockets = meter(rapl.meter(tmp_path))
    for zone in ("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0", "intel-rapl:2", "intel-rapl-mmio:0"):
        machine.set(zone, 2_001_000)
    assert sockets.joules() == pytest.approx(4.0)
    assert sockets.about() == {"method": "RAPL", "measured": True, "scope": "whole CPU packages"}


def unreadable(file):
    """What even root cannot read as a file."""
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize("damage", ["nothing there", "unreadable", "no number", "one of two missing", "span of 0"])
def test_no_rapl_where_a_package_cannot_be_read(tmp_path, damage):
    file = tmp_path / "intel-rapl:1" / "energy_uj"
    if damage != "nothing there":
        Machine(tmp_path, packages=2)
    if damage == "unreadable":
        unreadable(file)
    elif damage == "no number":
        file.write_text("?\n")
    elif damage == "one of two missing":
        file.unlink()
    elif damage == "span of 0":
        file.with_name("max_energy_range_uj").write_text("0\n")
    assert rapl.meter(tmp_path) is None
    found = energy.meter(root=tmp_path)
    assert (found.method, found.measured) == ("modelled", False)


def test_a_counter_that_is_lost_makes_the_energy_unknown_and_ends_nothing(tmp_path, meter, caplog):
    Machine(tmp_path)
    sockets = meter(rapl.meter(tmp_path))
    unreadable(tmp_path / "intel-rapl:0" / "energy_uj")
    with caplog.at_level(logging.WARNING):
        assert math.isnan(sockets.joules())
        assert math.isnan(sockets.joules())
    assert caplog.text.count("RAPL can no longer be read") == 1


def test_counters_are_looked_at_without_being_asked(meter):
    looked = []
    sampled = meter(Sampled("RAPL", "", lambda: looked.append(1) or 2.0, 0.005, OSError))
    until = time.monotonic() + 5
    while len(looked) < 3 and time.monotonic() < until:
        time.sleep(0.005)
    assert len(looked) >= 3
    sampled.close()
    count = len(looked)
    assert sampled.joules() == 2.0 * (count + 1)
    time.sleep(0.03)
    assert len(looked) == count + 1  # a closed one has no thread


def test_thermal_design_power_is_the_sum_of_long_term_limits(tmp_path):
    assert rapl.tdp(tmp_path) is None
    machine = Machine(tmp_path, packages=0)
    machine.zone("intel-rapl:0", "package-0", tdp=65)
    assert rapl.tdp(tmp_path) == pytest.approx(65)
    machine.zone("intel-rapl:1", "package-1", tdp=120)
    assert rapl.tdp(tmp_path) == pytest.approx(185)
    machine.zone("intel-rapl:2", "package-2")  # says nothing, as AMD's do
    assert rapl.tdp(tmp_path) is None


# NVML: a stand-in for its module ------------------------------------------------------------------------------------


def test_nvml_counter(meter):
    library = Nvml()
    gpu = meter(nvml.meter("abc", library))
    assert (gpu.method, gpu.measured, gpu.joules()) == ("NVML counter", True, 0.0)
    library.millijoules += 1500
    assert gpu.joules() == pytest.approx(1.5)
    library.millijoules = 0  # the driver was loaded again
    assert gpu.joules() == pytest.approx(1.5)
    library.millijoules += 500
    assert gpu.joules() == pytest.approx(2.0)


def test_nvml_power_where_there_is_no_counter_and_closing_leaves_nothing_open():
    library = Nvml(counter=False)
    gpu = nvml.meter("abc", library)
    assert gpu.method == "NVML power"
    assert gpu.about() == {"method": "NVML power", "measured": True, "scope": "whole GPU"}
    assert library.open == 1
    gpu.close()
    assert library.open == 0


def test_a_part_of_a_gpu_is_counted_as_the_gpu(meter):
    library = Nvml(present="MIG-abc")
    gpu = meter(nvml.meter("abc", library))
    library.millijoules += 3000
    assert gpu.joules() == pytest.approx(3.0)


@pytest.mark.parametrize("library", [Nvml(starts=False), Nvml(present="GPU-other")], ids=["no driver", "not found"])
def test_no_nvml(library, gpu, tmp_path):
    assert nvml.meter("abc", library) is None
    assert library.open == 0
    found = energy.meter("cuda:0", root=tmp_path, library=library)
    assert (found.method, found.measured) == ("unknown", False)
    assert math.isnan(found.joules())
    assert "cannot be read" in found.about()["reason"]


def test_without_the_package_there_is_no_nvml(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert nvml.meter("abc") is None


def test_the_package_has_what_is_asked_of_it():
    """Where nvidia-ml-py is installed: the stand-in and the real module have the same functions."""
    pynvml = pytest.importorskip("pynvml")
    assert all(hasattr(pynvml, name) for name in dir(Nvml) if name.lower().startswith("nvml"))
    assert issubclass(pynvml.NVMLError, Exception)


def test_a_gpu_that_falls_off_the_bus_ends_nothing(meter, caplog):
    library = Nvml()
    gpu = meter(nvml.meter("abc", library))
    library.broken = True
    assert math.isnan(gpu.joules())
    assert "NVML counter can no longer be read" in caplog.text


# which meter --------------------------------------------------------------------------------------------------------


def test_gpu_and_sockets_add_up(gpu, tmp_path, meter):
    machine, library = Machine(tmp_path), Nvml()
    both = meter(energy.meter("cuda:0", root=tmp_path, library=library))
    library.millijoules += 2000
    machine.set("intel-rapl:0", 3_001_000)
    assert both.joules() == pytest.approx(5.0)
    assert both.about() == {
        "method": "NVML counter + RAPL",
        "measured": True,
        "scope": "whole GPU + whole CPU packages",
    }


def test_a_sum_with_a_modelled_part_is_not_measured(gpu, tmp_path, meter):
    both = meter(energy.meter("cuda:0", root=tmp_path, library=Nvml(counter=False)))
    assert (both.method, both.measured) == ("NVML power + modelled", False)
    assert both.about()["watts_per_thread"] == model.WATTS_PER_THREAD
    assert both.about()["method"] == both.method


def test_sockets_are_counted_by_the_first_process_of_a_machine(gpu, tmp_path, meter):
    machine, library = Machine(tmp_path), Nvml()
    second = meter(energy.meter(first=False, root=tmp_path))
    second_gpu = meter(energy.meter("cuda:0", first=False, root=tmp_path, library=library))
    machine.set("intel-rapl:0", 3_001_000)
    library.millijoules += 2000
    assert (second.method, second.measured, second.joules()) == ("RAPL", True, 0.0)
    assert second_gpu.joules() == pytest.approx(2.0)


def test_going_on_elsewhere_says_how_each_part_was_counted():
    modelled = {"method": "modelled", "measured": False, "watts_per_thread": 4.0}
    read = {"method": "RAPL", "measured": True}
    assert energy.continued(None, read) == read
    assert energy.continued(read, read) == read
    mixed = energy.continued(modelled, read)
    assert mixed == {"method": "modelled, then RAPL", "measured": False}
    assert energy.continued(mixed, read) == mixed
    assert energy.continued(mixed, modelled)["method"] == "modelled, then RAPL, then modelled"


# the model ----------------------------------------------------------------------------------------------------------


def burn(seconds):
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def test_modelled_energy_is_cpu_time_times_the_declared_power(tmp_path):
    found, began = energy.meter(root=tmp_path), time.process_time()
    time.sleep(0.05)  # costs nothing
    burn(0.2)
    took = time.process_time() - began
    assert found.joules() == pytest.approx(4 * took, rel=0.02)
    assert found.about()["watts_per_thread"] == 4
    assert found.about()["watts_source"] == "declared constant"


def test_twice_the_cpu_time_is_twice_the_modelled_energy():
    assert model.modelled(2 * 1.7) == 2 * model.modelled(1.7)
    assert model.modelled(0.0) == 0.0
    assert model.modelled(3.0, 12.5) == 37.5


def test_the_tdp_is_shared_between_threads_where_linux_tells_it(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    machine = Machine(tmp_path, packages=0)
    machine.zone("intel-rapl:0", "package-0", tdp=64)
    (tmp_path / "intel-rapl:0" / "energy_uj").unlink()  # only root could read it
    found = energy.meter(root=tmp_path)
    assert found.about()["watts_per_thread"] == pytest.approx(8)
    assert found.about()["watts_source"] == "TDP of the packages"
    began = time.process_time()
    burn(0.1)
    assert found.joules() == pytest.approx(8 * (time.process_time() - began), rel=0.05)


@pytest.mark.parametrize("clock", ["POSIX", "psutil"])
def test_children_count_while_they_run_and_once_when_they_have_ended(clock, monkeypatch):
    if clock == "psutil":
        monkeypatch.setattr(model, "_clock_of", lambda: None)
    context = multiprocessing.get_context("fork")
    done, leave = context.Event(), context.Event()

    def work():
        burn(0.4)
        done.set()
        leave.wait()

    before, own = model.cpu_seconds(), time.process_time()
    child = context.Process(target=work)
    child.start()
    done.wait()

    def of_child():
        return model.cpu_seconds() - before - (time.process_time() - own)

    running = of_child()
    leave.set()
    child.join()
    assert running == pytest.approx(0.4, abs=0.1)
    assert of_child() == pytest.approx(0.4, abs=0.2)  # a process also starts and ends; counted twice it were 0.8


def test_looking_costs_microseconds():
    found = model.Modelled()
    times = []
    for _ in range(200):
        began = time.perf_counter()
        found.joules()
        times.append(time.perf_counter() - began)
    assert sorted(times)[100] < 200e-6  # a round of the smallest run takes some milliseconds


# in a run -----------------------------------------------------------------------------------------------------------

KEYS = ("run_id", "benchmark", "preset", "scenario", "arm", "seed")


class Fixed:
    """A meter that has seen `step` J more at every look."""

    measured = True

    def __init__(self, step, method="RAPL"):
        self.step, self.method, self.total = step, method, 0.0

    def joules(self):
        self.total += self.step
        return self.total

    def about(self):
        return {"method": self.method, "measured": True, "scope": "a test"}

    def close(self):
        pass


class Killed(BaseException):
    pass


def trained(folder, meter=None, stop=None, rounds=6):
    federation, (algorithm, _) = nets.federation(), build("scaffold", lr=0.1)
    s = setting(algorithm, federation, nets.task(), rounds=rounds, epochs=1, batch_size=4)
    if stop:

        def serve(server, up, info):
            if info.round == stop:
                raise Killed
            return algorithm.serve(server, up, info)

        s = replace(s, algorithm=replace(algorithm, serve=serve))
    recorder = Recorder(folder, dict.fromkeys(KEYS, "test"))
    train(s, federation, recorder, {"revision": "abc"}, checkpoint_seconds=0, meter=meter)
    recorder.end("finished")
    return Record(folder)


def test_joules_of_training_stand_in_timing_and_how_they_were_counted_in_provenance(tmp_path):
    found = trained(tmp_path, Fixed(0.25))
    assert [row["joules"] for row in found.timing] == [0.25 * round for round in range(1, 7)]
    assert found.provenance["energy"] == {"method": "RAPL", "measured": True, "scope": "a test"}
    assert found.provenance["revision"] == "abc"


def test_what_is_measured_touches_no_bit_of_the_rounds(tmp_path):
    records = [trained(tmp_path / name, meter) for name, meter in [("a", Fixed(1.0)), ("b", Fixed(7.0)), ("c", None)]]
    assert len({(found.folder / record.ROUNDS).read_bytes() for found in records}) == 1
    assert records[2].provenance["energy"]["method"] == "modelled"
    joules = [row["joules"] for row in records[2].timing]
    assert joules == sorted(joules)
    assert joules[0] > 0


def test_a_run_that_goes_on_adds_to_the_joules_of_its_checkpoint(tmp_path):
    with pytest.raises(Killed):
        trained(tmp_path, Fixed(1.0, "modelled"), stop=4)  # four rounds are in the checkpoint
    found = trained(tmp_path, Fixed(10.0))
    assert [row["joules"] for row in found.timing] == [1, 2, 3, 4, 14, 24]
    assert found.provenance["energy"]["method"] == "modelled, then RAPL"


def test_without_a_number_there_is_no_joules_entry(tmp_path):
    found = trained(tmp_path, energy.Unknown("no NVML"))
    assert all("joules" not in row for row in found.timing)
    assert found.provenance["energy"]["reason"] == "no NVML"
    json.loads((tmp_path / record.TIMING).read_text().splitlines()[0])


def test_a_whole_run_chooses_and_closes_its_meter(tmp_path, monkeypatch):
    made = []

    class Closing(Fixed):
        closed = False

        def close(self):
            self.closed = True

    def choose(device, first):
        made.append((device, first, Closing(0.5)))
        return made[-1][2]

    monkeypatch.setattr(energy, "meter", choose)
    federation = nets.federation()
    s = setting(build("fedavg")[0], federation, nets.task(), rounds=2, epochs=1)
    assert compute(s, federation, Recorder(tmp_path, dict.fromkeys(KEYS, "test")), {}, 30)
    ((device, first, used),) = made
    assert (device, first, used.closed) == ("cpu", True, True)
    assert Record(tmp_path).timing[-1]["joules"] == 1.0


class Laborious:
    """A task whose gradient burns CPU time where it runs in a worker process."""

    def __init__(self, seconds):
        self._task, self._seconds, self._home = nets.task(), seconds, os.getpid()

    def __getattr__(self, name):
        return getattr(self._task, name)

    def grad(self, theta, batch, term=None):
        if os.getpid() != self._home:
            burn(self._seconds)
        return self._task.grad(theta, batch, term)


def test_work_of_worker_processes_is_counted_while_they_live(tmp_path):
    """Four clients of one batch each: three of the first round and four of the second are computed by workers."""
    federation = nets.federation()
    s = setting(build("fedavg")[0], federation, Laborious(0.05), rounds=2, epochs=1, schedule=ScheduleFile(title=""))
    object.__setattr__(s, "executor", Workers(2))
    recorder = Recorder(tmp_path, dict.fromkeys(KEYS, "test"))
    try:
        train(s, federation, recorder, {}, checkpoint_seconds=30)
        recorder.close()
    finally:
        s.executor.close()
    watts = Record(tmp_path).provenance["energy"]["watts_per_thread"]
    spent = [row["joules"] / watts for row in Record(tmp_path).timing]
    assert spent[0] >= 3 * 0.05
    assert spent[1] - spent[0] >= 4 * 0.05
