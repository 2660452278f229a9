"""Whose files are whose on this kernel: idmapped layers, homes and group directories, volumes, commits, builds."""

from __future__ import annotations

import pytest

from tests.support.vm.machine import Machine


@pytest.fixture(scope="module")
def people(module_machine: Machine) -> Machine:
    module_machine.run("groupadd lab; usermod -aG lab ada; usermod -aG lab bob")
    module_machine.run("install -d -m 2770 -g lab /home/lab; chmod 700 /home/ada")
    return module_machine


def test_a_home_is_ones_own_inside_and_on_disk(people: Machine) -> None:
    script = "id -u; cat /home/ada/here; echo made >/home/ada/made; chown 5 /home/ada/other 2>&1; ls -ln /home/ada/made"
    people.run("echo mine >here; touch other", "ada")
    seen = people.run(f"docker run --rm -v /home/ada:/home/ada busybox sh -c '{script}'", "ada")
    assert seen.stdout.startswith("0\nmine\n")
    uid = people.run("id -u ada").stdout.strip()
    assert people.run("stat -c '%u %U' /home/ada/made").stdout == f"{uid} ada\n"
    refused = people.run("docker run --rm -v /home/ada:/x busybox ls /x", "bob", check=False)
    assert refused.returncode != 0
    assert "ermission" in refused.stderr
    shared = "docker run --rm -v /home/lab:/lab busybox sh -c 'id -u >/lab/by-ada && cat /lab/*'"
    people.run(shared, "ada")
    assert people.run("stat -c '%U %G' /home/lab/by-ada").stdout == "ada lab\n"
    people.run(shared.replace("by-ada", "by-bob"), "bob")


def test_layers_hold_the_same_ids_for_everybody(people: Machine) -> None:
    recipe = (
        "FROM busybox\n"
        "RUN mkdir /data && touch /data/a /data/b && chown 33:33 /data/b && chmod 4755 /data/a\n"
        "RUN rm /root -r && touch /data/c && ls -ln /data\n"
    )
    for user in ("ada", "bob"):
        people.run(f"docker build -t {user}s -", user, input_=recipe.encode())
        seen = people.run(f"docker run --rm {user}s stat -c '%u:%g %a %n' /data/a /data/b", user)
        assert seen.stdout == "0:0 4755 /data/a\n33:33 644 /data/b\n"
        # A commit of what was written by a mapped root is the same to the next.
        people.run(
            f"docker run --name made {user}s sh -c 'echo x >/data/d; chown 7:8 /data/d'", user
        )
        people.run(f"docker commit made {user}s:2 && docker rm made", user)
        seen = people.run(
            f"docker run --rm {user}s:2 sh -c 'stat -c %u:%g /data/d; ls -d /root'",
            user,
            check=False,
        )
        assert seen.stdout == "7:8\n"
    # On disk the files of layers belong to nobody's range: what is 33 inside is 33 there.
    found = people.run("find /var/lib/bakehouse -path '*/data/b' -printf '%U:%G\\n'").stdout.split()
    assert set(found) == {"33:33"}
    people.run("docker run -d --name seen --init adas sleep 10000", "ada")
    pid = people.run("docker inspect -f '{{.State.Pid}}' seen", "ada").stdout.strip()
    uid = people.run("id -u ada").stdout.strip()
    assert people.read(f"/proc/{pid}/uid_map").split()[:3] == ["0", uid, "1"]
    assert " / " in people.read(f"/proc/{pid}/mountinfo")
    people.run("docker rm -f seen", "ada")


def test_volumes_copies_and_savings(people: Machine) -> None:
    people.run("docker volume create kept", "ada")
    people.run(
        "docker run --rm -v kept:/kept busybox sh -c 'echo x >/kept/f; chown 5:6 /kept/f'", "ada"
    )
    assert (
        people.run("docker run --rm -v kept:/k busybox stat -c %u:%g /k/f", "ada").stdout == "5:6\n"
    )
    people.run(
        "docker create --name copied busybox true; echo in >in; docker cp in copied:/tmp/in", "ada"
    )
    people.run("docker cp copied:/tmp/in out && cmp in out && docker rm copied", "ada")
    people.run("docker save -o saved.tar busybox && docker load -i saved.tar", "ada")


def test_the_network_of_this_kernel(people: Machine) -> None:
    serve = "mkdir /w; echo found >/w/index.html; httpd -f -p 80 -h /w"
    people.run(
        f"docker network create net; docker run -d --name web --net net -p 8081:80 --init busybox sh -c '{serve}'",
        "ada",
    )
    assert people.eventually("curl -sf http://127.0.0.1:8081/") == "found\n"
    found = people.run("docker run --rm --net net busybox wget -qO- http://web/", "ada").stdout
    assert found == "found\n"
    people.run("docker rm -f web; docker network rm net", "ada")


@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_either_runtime(machine: Machine, runtime: str) -> None:
    machine.run(
        f"printf '[runtime]\\nruntimes = [\"{runtime}\"]\\n' >/etc/bakehouse/bakehouse.toml"
    )
    machine.run("systemctl restart bakehouse")
    machine.run("docker run -d --name cc -m 64m --init busybox sleep 10000", "ada")
    assert machine.run("docker exec cc sh -c 'id -u; hostname >/tmp/x'", "ada").stdout == "0\n"
    machine.run("docker pause cc; docker unpause cc; docker stop -t 1 cc; docker rm cc", "ada")
    assert (
        machine.run("docker run --rm -i busybox cat", "ada", input_=b"through").stdout == "through"
    )
