"""A ledger in memory, grown to a size."""

from __future__ import annotations

from strongroom.ledger import merkle


class Memory:
    def __init__(self):
        self.rows = {}
        self.data = []

    def node(self, level, index):
        return self.rows[level, index]

    def leaves(self, start, count):
        return self.data[start : start + count]

    def add(self, data):
        for level, index, value in merkle.append(self, len(self.data), (data,)):
            assert (level, index) not in self.rows
            self.rows[level, index] = value
        self.data.append(data)


def grown(count):
    memory = Memory()
    for number in range(count):
        memory.add(b"leaf %d" % number)
    return memory
