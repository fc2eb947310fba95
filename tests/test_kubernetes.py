"""The Kubernetes manifest: its parts agree, and its command is one that the program takes. No cluster has seen it."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from sslight.config import PretrainSettings, load_recipe, read_words

MANIFEST = Path(__file__).parents[1] / "examples" / "kubernetes.yaml"


@pytest.fixture
def jobset() -> dict[str, Any]:
    [content] = yaml.safe_load_all(MANIFEST.read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


@pytest.fixture
def pod(jobset: dict[str, Any]) -> dict[str, Any]:
    [job] = jobset["spec"]["replicatedJobs"]
    spec: dict[str, Any] = job["template"]["spec"]["template"]["spec"]
    return spec


def variables(pod: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each["value"] for each in pod["containers"][0]["env"]}


def test_there_are_as_many_pods_and_processes_as_torchrun_expects_and_the_first_has_the_address(
    jobset: dict[str, Any], pod: dict[str, Any]
) -> None:
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    name, [job] = jobset["metadata"]["name"], jobset["spec"]["replicatedJobs"]
    indexed = job["template"]["spec"]
    assert job["replicas"] == 1
    assert indexed["completionMode"] == "Indexed"
    assert indexed["backoffLimit"] == 0  # or Kubernetes would replace one pod, which the others do not wait for
    given = variables(pod)
    assert int(given["NODES"]) == indexed["parallelism"] == indexed["completions"]
    assert int(given["GPUS"]) == pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]
    # JobSet's names of hosts: JOBSET-JOB-JOBINDEX-PODINDEX.JOBSET
    assert given["FIRST"] == f"{name}-{job['name']}-0-0.{name}"


def test_the_job_is_one_that_the_published_schema_of_kubernetes_takes(jobset: dict[str, Any]) -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="17,000 files: pip install kubernetes-validate")
    [part] = jobset["spec"]["replicatedJobs"]
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": jobset["metadata"], **part["template"]}
    for version in ("1.30", "1.34", "1.37"):
        validator.validate(job, version, strict=True)
    with pytest.raises(validator.ValidationError, match="'backofLimit' was unexpected"):
        validator.validate(job | {"spec": job["spec"] | {"backofLimit": 0}}, "1.37", strict=True)


def test_all_that_is_mounted_is_there_and_all_that_is_written_is_mounted(pod: dict[str, Any]) -> None:
    mounts = {mount["name"]: mount for mount in pod["containers"][0]["volumeMounts"]}
    assert set(mounts) == {volume["name"] for volume in pod["volumes"]}
    given = variables(pod)
    for place in ("OUTPUT", "XDG_CACHE_HOME"):
        [mount] = [m for m in mounts.values() if f"{given[place]}/".startswith(f"{m['mountPath']}/")]
        assert not mount.get("readOnly")


def test_the_command_starts_a_run_that_the_program_accepts(pod: dict[str, Any], tmp_path: Path) -> None:
    torchrun = tmp_path / "torchrun"
    torchrun.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    torchrun.chmod(0o755)
    environment = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", **variables(pod)}
    done = subprocess.run(
        pod["containers"][0]["command"], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    given = done.stdout.splitlines()
    module = given.index("-m")
    port = pod["containers"][0]["ports"][0]["containerPort"]
    assert f"--rdzv-endpoint=sslight-node-0-0.sslight:{port}" in given[:module]
    assert {"--nnodes=2", "--nproc-per-node=8"} <= set(given[:module])
    assert given[module : module + 3] == ["-m", "sslight", "pretrain"]
    [recipe], typed = read_words("pretrain", given[module + 3 :])
    settings = load_recipe(recipe, typed)
    assert isinstance(settings, PretrainSettings)
    assert settings.resume == "auto"
    assert settings.batch_size % 16 == 0
