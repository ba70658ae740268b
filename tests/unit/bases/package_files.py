"""Files of a base's packages, small."""

from strongroom.bases import initramfs
from strongroom.bases.files import File
from strongroom.bases.profile import LOCAL


def module(*depends: str) -> File:
    return File(
        content=b"\x7fELF\x00license=GPL\x00depends=" + ",".join(depends).encode() + b"\x00name=x\x00"
    )


def package_files(**changed: File | None) -> dict[str, File]:
    kernel = "lib/modules/6.1.0-1-cloud-amd64/kernel/drivers"
    files = {f"{kernel}/{name.replace('_', '-')}.ko": module() for name in LOCAL.modules}
    files[f"{kernel}/virtio.ko"] = module()
    files[f"{kernel}/virtio-blk.ko"] = module("virtio")
    files[f"{kernel}/dm-mod.ko"] = module()
    files[f"{kernel}/dm-bufio.ko"] = module("dm-mod")
    files[f"{kernel}/dm-verity.ko"] = module("dm-bufio", "dm-mod")
    for path in (initramfs.BUSYBOX, initramfs.DMSETUP, initramfs.LOADER):
        files[path] = File(content=path.encode(), executable=True)
    for name in initramfs.LIBRARIES:
        files[f"usr/lib/x86_64-linux-gnu/{name}"] = File(content=name.encode())
    for path, file in changed.items():
        if file is None:
            del files[path]
        else:
            files[path] = file
    return files
