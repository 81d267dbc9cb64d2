from __future__ import annotations

from tests.support.builds import digits_job, finish, kill_in, run, start, write_job

# In the order they run. `export` and `compile` run once a component or piece; the first of each is hit.
STAGES = ("fetch", "reference", "quantize", "candidate", "step-cache", "export", "compile", "verify", "engine")
SEVERAL = {"export", "compile"}


def test_a_build_killed_in_every_stage_completes_and_repeats_no_finished_stage(tmp_path):
    job = write_job(tmp_path, digits_job(stepCache={"policy": "Auto"}, calibration={"samples": 2}))
    store = tmp_path / "store"
    midway = {"export": lambda: any(store.glob("artifacts/export-*.partial/*.onnx"))}  # The others are hit as they begin.
    done: list[str] = []
    for stage in STAGES:
        repeated = set(finished := kill_in(stage, job, store, midway.get(stage))) & set(done) - SEVERAL
        assert not repeated, f"killed in {stage}: {repeated} had been done before"
        done += finished
    last = run(job, store)
    assert last.code == 0, last.result
    assert set(last.stages(reused=True)) == set(STAGES) - {"engine"}
    assert last.stages(reused=False) == ["engine"]
    assert not list(store.glob("artifacts/*.partial"))


def test_of_two_builds_of_one_key_one_builds_and_the_other_reuses(built, shared_store, tmp_path):
    job = write_job(tmp_path, digits_job() | {"maxBatchSize": 3})
    with start(job, shared_store) as one, start(job, shared_store) as other:
        first, second = finish(one), finish(other)
    assert (first.code, second.code) == (0, 0)
    assert sorted([first.result["reused"], second.result["reused"]]) == [False, True]
    assert first.result["path"] == second.result["path"]
