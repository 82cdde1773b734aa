"""Lineages tell whose erasures a version has apart from where its weights come from."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "UPDATE version SET lineage = lineage || jsonb_build_object("
        "'forgets', coalesce(lineage -> 'chain', '[]'::jsonb), 'drift', 0.0) "
        "WHERE NOT lineage ? 'forgets'"
    )


def downgrade() -> None:
    op.execute("UPDATE version SET lineage = lineage - 'forgets' - 'drift'")
