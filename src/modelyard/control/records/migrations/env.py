"""Run by Alembic, on the connection that `schema.migrate` hands over; nothing comes from a file or the environment."""

from alembic import context

from modelyard.control.records.metadata import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    transactional_ddl=True,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
