"""Draft the first migration of a capability from its tables: `python tools/draft_migration.py deployments`.

Prints an Alembic revision `<capability>_0001` of a branch of its own; read it, then save it as
`src/modelyard/control/records/migrations/versions/<capability>_0001.py`.
"""

import sys
from importlib import import_module

from alembic.autogenerate import produce_migrations, render_python_code
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from modelyard.control.records import METADATA

_HEAD = '''"""The tables of {name}."""

import sqlalchemy as sa
from alembic import op

revision = "{name}_0001"
down_revision = None
branch_labels = ("{name}",)
depends_on = {depends!r}


def upgrade() -> None:
    """Make the tables."""
    {body}
'''


def main(name: str) -> None:
    """Print the revision."""
    known = set(METADATA.tables)
    import_module(f"modelyard.control.{name}.tables")
    module = f"modelyard.control.{name}.tables"
    own = {table.name for table in vars(sys.modules[module]).values() if getattr(table, "metadata", None) is METADATA}
    foreign = {key.column.table.name for table in own for key in METADATA.tables[table].foreign_keys} - own
    with create_engine("sqlite://").connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "target_metadata": METADATA,
                "include_object": lambda thing, label, kind, *_: kind != "table" or label in own,
                "render_item": lambda kind, thing, _: (
                    "sa.BigInteger()" if kind == "type" and type(thing).__name__ == "Moment" else False
                ),
            },
        )
        script = produce_migrations(context, METADATA)
    body = render_python_code(script.upgrade_ops, migration_context=context, render_item=context.opts["render_item"])
    print(_HEAD.format(name=name, depends=("catalog_0001",) if foreign & known else None, body=body))


if __name__ == "__main__":
    main(sys.argv[1])
