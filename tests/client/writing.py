"""An app that writes events through the offline queue, in a process of its own that may be killed at any moment.

    python -m tests.client.writing BINDING QUEUE NAME COUNT

It writes COUNT numbers as events of type NAME, and how far it is into QUEUE.NAME. Started again, it goes on with the
event that it was at when it was killed, under the same event id: nobody knows what became of that one.
"""

import sys
from pathlib import Path

from memory_client import Memory


def main() -> None:
    binding, queue, name, count = sys.argv[1:]
    progress = Path(f"{queue}.{name}")
    begin = int(progress.read_text()) if progress.exists() and progress.read_text() else 0
    with (
        Memory.from_binding(binding, queue=queue, timeout=2) as memory,
        progress.open("r+" if progress.exists() else "w") as file,
    ):
        for number in range(begin, int(count)):
            file.seek(0)
            file.write(str(number))
            file.flush()
            memory.events.append(name, number, event_id=str(number), source=name)
            if number % 10 == 0:
                memory.kv.put(name, number)


if __name__ == "__main__":
    main()
