"""What Alembic runs: migrations over the one connection that ``syncflow_core.bridge.migrate`` hands in."""

from alembic import context

from syncflow_core.bridge.tables import SCHEMA, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    include_schemas=True,
    include_name=lambda name, kind, _parents: kind != "schema" or name == SCHEMA,
    version_table_schema=SCHEMA,
)
context.run_migrations()
