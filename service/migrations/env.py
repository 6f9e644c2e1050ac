"""Runs the migrations on the connection that `service.schema.migrate` hands over."""

from alembic import context

from service.tables import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
context.run_migrations()
