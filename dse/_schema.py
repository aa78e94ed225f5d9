"""The tables of a campaign's SQLite file, and the way to them from every earlier schema version."""

from __future__ import annotations

from dse.trial import Json

SCHEMA_VERSION = 3

_DEFAULTS_OF_1 = {"method": "qlognehvi", "initial": 10}

_EVENTS = """
CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    trial INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('ask', 'start', 'tell', 'fail', 'note', 'attach')),
    time TEXT NOT NULL,
    payload TEXT NOT NULL CHECK (json_valid(payload))
);
"""

_GUARDS = """
CREATE INDEX events_of_trial ON events (trial, id);
CREATE TRIGGER events_are_kept BEFORE DELETE ON events
BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
CREATE TRIGGER events_are_final BEFORE UPDATE ON events
BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
"""

# The first nine columns are those of version 1, in its order; each later version adds some at the end.
_VIEW = """
CREATE VIEW evaluations AS
SELECT
    last.trial AS trial,
    CASE last.kind
        WHEN 'ask' THEN 'pending' WHEN 'start' THEN 'running'
        ELSE coalesce(json_extract(last.payload, '$.state'), 'done')
    END AS state,
    json_extract(first.payload, '$.parameters') AS parameters,
    json_extract(last.payload, '$.values') AS "values",
    json_extract(last.payload, '$.metrics') AS metrics,
    json_extract(last.payload, '$.error') AS error,
    json_extract(last.payload, '$.seconds') AS seconds,
    (SELECT json_extract(value, '$') FROM meta WHERE key = 'seed') AS seed,
    json_extract(last.payload, '$.versions') AS versions,
    json_extract(last.payload, '$.constraints') AS constraints,
    json_extract(first.payload, '$.row') AS "row",
    first.kind = 'attach' AS attached,
    coalesce(json_extract(last.payload, '$.cached'), 0) AS cached,
    json_extract(first.payload, '$.fidelity') AS fidelity
FROM events AS last
JOIN events AS first
    ON first.id = (SELECT MIN(id) FROM events WHERE trial = last.trial AND kind IN ('ask', 'attach'))
WHERE last.id = (SELECT MAX(id) FROM events WHERE trial = last.trial AND kind <> 'note')
ORDER BY last.trial;
"""

CREATE = f"""
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
{_EVENTS}{_GUARDS}{_VIEW}
"""

# Version 2: rows that were attached, outcome constraints, rows of tables, cached results.
_FROM_1_TO_2 = f"""
DROP VIEW evaluations;
DROP TRIGGER events_are_kept;
DROP TRIGGER events_are_final;
DROP INDEX events_of_trial;
ALTER TABLE events RENAME TO events_before;
{_EVENTS}
INSERT INTO events SELECT id, trial, kind, time, payload FROM events_before ORDER BY id;
DROP TABLE events_before;
{_GUARDS}{_VIEW}
"""  # noqa: S608  our own text only

# Version 3: fidelities. An older program would take cheap evaluations for exact ones, so it must refuse.
_FROM_2_TO_3 = f"""
DROP VIEW evaluations;
{_VIEW}
"""

MIGRATIONS = {
    1: _FROM_1_TO_2,
    2: _FROM_2_TO_3,
}  #: script by the version it starts from; each leads to the next version


def restate(version: int, identity: dict[str, Json]) -> dict[str, Json]:
    """Describe the campaign of an older file as one made today by the same code would be described.

    Parameters
    ----------
    version
        Schema version of the file.
    identity
        What the file says: seed, method, initial, space, objectives and config.
    """
    restated = dict(identity)
    if version < 2 and "objectives" in restated:
        # Version 1 had logarithms or nothing; what asked for nothing asks for the default today.
        restated["objectives"] = [
            {
                **{key: value for key, value in objective.items() if key != "log"},
                "transform": "log" if objective["log"] else "auto",
            }
            for objective in restated["objectives"]
        ]
        restated.setdefault("outcome_constraints", [])
    if version < 3 and "objectives" in restated:
        restated["objectives"] = [{**objective, "features": False} for objective in restated["objectives"]]
        restated.setdefault("fidelity", None)
    return restated


def restate_as(today: dict[str, Json], version: int, identity: dict[str, Json]) -> dict[str, Json]:
    """`restate`, with what a campaign asks for by default today and version 1 had written out."""
    restated = restate(version, identity)
    for key, meant in (("method", "auto"), ("initial", None)):
        if version < 2 and today[key] == meant and restated.get(key) == _DEFAULTS_OF_1[key]:
            restated[key] = meant
    return restated
