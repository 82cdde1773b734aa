"""Audit entries take a position and the digest of the one before."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("audit_entry", sa.Column("position", sa.BigInteger))
    op.add_column("audit_entry", sa.Column("previous_digest", sa.Text))
    op.add_column("audit_entry", sa.Column("digest", sa.Text))
    op.create_unique_constraint(op.f("uq_audit_entry_position"), "audit_entry", ["position"])
    op.create_index(
        "ix_audit_entry_unchained",
        "audit_entry",
        ["id"],
        postgresql_where=sa.text("position IS NULL"),
    )
    op.create_index(
        op.f("ix_audit_entry_object_id_position"), "audit_entry", ["object_id", "position"]
    )


def downgrade() -> None:
    op.drop_index(op.f("ix_audit_entry_object_id_position"), table_name="audit_entry")
    op.drop_index("ix_audit_entry_unchained", table_name="audit_entry")
    op.drop_constraint(op.f("uq_audit_entry_position"), "audit_entry")
    for column in ("digest", "previous_digest", "position"):
        op.drop_column("audit_entry", column)
