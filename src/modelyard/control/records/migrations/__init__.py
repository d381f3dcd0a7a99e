"""The history of the schema: one branch of Alembic revisions a capability, so that two changes never collide."""
