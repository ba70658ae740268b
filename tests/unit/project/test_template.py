"""`init` writes a file that is read without a complaint, for a job and for a service."""

from __future__ import annotations

import json

import pytest

from strongroom.errors import Misuse, NotFound
from strongroom.project import file, template
from tests import verbs
from tests.unit.images import kit
from tests.unit.project.kit import IMAGE


@pytest.fixture
def image(tmp_path):
    kit.simple(tmp_path / "Web_Server", kit.PROGRAM, config={"Entrypoint": ["/bin/serve"], "User": "www"})
    return tmp_path / "Web_Server"


def test_a_service_from_an_image_that_lies_here(image, tmp_path):
    written = template.write_project(str(image), ports=(443, 8080), out=tmp_path / "compose.yaml")
    project = file.load(written.path)
    file.refuse_blocked(project)
    (service,) = project.services
    assert (service.name, service.image, written.is_job) == ("web-server", str(image), False)
    assert [(port.host_port, port.number) for port in service.published] == [(8443, 443), (8080, 8080)]
    assert service.settings.digest.startswith("sha256:")
    assert "# the image runs: /bin/serve" in written.path.read_text()
    assert "# as user: www" in written.path.read_text()


def test_open_ports_and_a_certificate_are_written_where_they_are_asked_for(image, tmp_path):
    written = template.write_project(
        str(image),
        ports=(443,),
        is_open=True,
        certificate_names=("shop.example.org",),
        out=tmp_path / "c.yaml",
    )
    (service,) = file.load(written.path).services
    assert (service.ports[0].open, service.certificate.names) == (True, ("shop.example.org",))
    plain = template.write_project(str(image), ports=(443,), out=tmp_path / "d.yaml")
    (service,) = file.load(plain.path).services
    assert (service.ports[0].open, service.certificate) == (False, None)


def test_a_job_from_a_registry_of_which_nothing_is_fetched(tmp_path):
    written = template.write_project(IMAGE, out=tmp_path / "compose.yaml", name="sum")
    (service,) = file.load(written.path).services
    assert (service.name, service.is_job, service.settings.image) == ("sum", True, IMAGE)
    assert [output.path for output in service.outputs] == ["/out"]


def test_every_commented_key_is_a_key(image, tmp_path):
    written = template.write_project(str(image), ports=(443,), out=tmp_path / "compose.yaml")
    lines = []
    for line in written.path.read_text().splitlines():
        body = line.lstrip()
        key = body.removeprefix("# ")
        lines.append(
            line.replace("# ", "", 1)
            if key.split(":")[0].replace("_", "").isalpha() and "[" in key and body != key
            else line
        )
    text = "\n".join(lines)
    project = file.parse(text.encode(), what="f")
    (service,) = project.services
    assert (service.ports[0].open, service.certificate.names) == (True, ("web.example.org",))
    assert [host.host for host in service.egress] == ["api.example.org"]
    file.refuse_blocked(project)


def test_what_is_there_stays_and_what_is_no_image_is_refused(image, tmp_path):
    taken = tmp_path / "compose.yaml"
    taken.write_text("mine")
    with pytest.raises(Misuse, match="exists already"):
        template.write_project(str(image), out=taken)
    assert taken.read_text() == "mine"
    with pytest.raises(NotFound, match=r"nowhere\.tar: no such file or folder") as missing:
        template.write_project(str(tmp_path / "nowhere.tar"), out=tmp_path / "other.yaml")
    assert missing.value.code == "no-such-file"
    with pytest.raises(Misuse, match="--name"):
        template.write_project(str(image), name="No Name", out=tmp_path / "other.yaml")
    assert not (tmp_path / "other.yaml").exists()


def test_the_verb(image, tmp_path):
    done = verbs.run("init", image.name, "--port", 443, cwd=tmp_path)
    assert (done.returncode, done.stdout.split(":")[0]) == (0, "compose.yaml"), done.stderr
    assert verbs.run("init", cwd=tmp_path).returncode == 2
    schema = verbs.run("init", "--schema", cwd=tmp_path)
    assert json.loads(schema.stdout)["title"]
