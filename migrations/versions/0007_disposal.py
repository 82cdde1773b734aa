"""Erased samples leave tombstones, superseded versions and old content leave the store."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "tombstone",
        sa.Column("dataset_id", sa.Uuid(), nullable=False),
        sa.Column("sample_mark", sa.Text(), nullable=False),
        sa.Column("subject_mark", sa.Text(), nullable=True),
        sa.Column("content_mark", sa.LargeBinary(), nullable=False),
        sa.Column("label", sa.Integer(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["dataset.id"], name=op.f("fk_tombstone_dataset_id")
        ),
        sa.PrimaryKeyConstraint("dataset_id", "sample_mark", name=op.f("pk_tombstone")),
    )
    op.create_index(
        op.f("ix_tombstone_dataset_id_subject_mark"), "tombstone", ["dataset_id", "subject_mark"]
    )
    op.create_index(op.f("ix_tombstone_content_mark"), "tombstone", ["content_mark"])
    op.create_table(
        "condemned",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_condemned")),
    )
    op.add_column("version", sa.Column("superseded_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("version", sa.Column("purged_at", sa.DateTime(timezone=True), nullable=True))
    op.execute(
        "UPDATE version SET superseded_at = clock_timestamp() "
        "WHERE state = 'superseded' AND superseded_at IS NULL"
    )


def downgrade() -> None:
    op.drop_column("version", "purged_at")
    op.drop_column("version", "superseded_at")
    op.drop_table("condemned")
    op.drop_index(op.f("ix_tombstone_content_mark"), table_name="tombstone")
    op.drop_index(op.f("ix_tombstone_dataset_id_subject_mark"), table_name="tombstone")
    op.drop_table("tombstone")
