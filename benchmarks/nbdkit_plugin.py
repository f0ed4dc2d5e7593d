"""The same disk as a Python plugin of nbdkit, written the usual way, to be measured against."""

import os

import nbdkit

API_VERSION = 2
_path = ""
_image = -1


def thread_model():
    return nbdkit.THREAD_MODEL_SERIALIZE_REQUESTS


def config(key, value):
    global _path
    if key != "image":
        raise RuntimeError(f"there is no parameter {key}")
    _path = value


def get_ready():
    global _image
    _image = os.open(_path, os.O_RDWR)


def open(readonly):
    return None


def get_size(handle):
    return os.fstat(_image).st_size


def can_multi_conn(handle):
    return True


def pread(handle, buffer, offset, flags):
    os.preadv(_image, [buffer], offset)


def pwrite(handle, buffer, offset, flags):
    os.pwrite(_image, buffer, offset)


def flush(handle, flags):
    os.fdatasync(_image)
