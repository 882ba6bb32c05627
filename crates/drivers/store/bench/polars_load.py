"""What polars needs for the same file: read_csv, then sort by the key. Prints JSON.

usage: polars_load.py FILE KEY_COLUMN... ; needs the package `polars`.
"""

import json
import sys
import time

import polars


def main() -> None:
    path, *key = sys.argv[1:]
    begin = time.perf_counter()
    frame = polars.read_csv(path)
    read = time.perf_counter()
    frame = frame.sort(key)
    end = time.perf_counter()
    print(
        json.dumps(
            {
                "polars": polars.__version__,
                "rows": frame.height,
                "read_ms": round((read - begin) * 1e3, 1),
                "sort_ms": round((end - read) * 1e3, 1),
                "total_ms": round((end - begin) * 1e3, 1),
                "distinct_keys": frame.select(key).n_unique(),
                "quantity_sum": frame["quantity"].sum() if "quantity" in frame.columns else None,
            }
        )
    )


if __name__ == "__main__":
    main()
