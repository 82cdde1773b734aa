"""Clocks that are extended or stand still, alarms, batches that were split."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "forget_request",
        sa.Column("extended_months", sa.Integer(), server_default="0", nullable=False),
    )
    op.add_column(
        "forget_request", sa.Column("paused_at", sa.DateTime(timezone=True), nullable=True)
    )
    op.add_column(
        "forget_request",
        sa.Column("alarm_percent", sa.Integer(), server_default="0", nullable=False),
    )
    op.alter_column(
        "forget_request",
        "due_at",
        server_default=sa.text(
            "timezone('UTC', timezone('UTC', clock_timestamp()) + interval '1 month')"
        ),
    )
    op.create_index(
        op.f("ix_forget_request_model_id_received_at"),
        "forget_request",
        ["model_id", "received_at"],
    )
    op.create_index(op.f("ix_batch_member_request_id"), "batch_member", ["request_id"])
    op.add_column("batch", sa.Column("parent_id", sa.Uuid(), nullable=True))
    op.create_foreign_key(op.f("fk_batch_parent_id"), "batch", "batch", ["parent_id"], ["id"])
    op.create_index(op.f("ix_batch_parent_id"), "batch", ["parent_id"])


def downgrade() -> None:
    op.drop_index(op.f("ix_batch_parent_id"), table_name="batch")
    op.drop_constraint(op.f("fk_batch_parent_id"), "batch", type_="foreignkey")
    op.drop_column("batch", "parent_id")
    op.drop_index(op.f("ix_batch_member_request_id"), table_name="batch_member")
    op.drop_index(op.f("ix_forget_request_model_id_received_at"), table_name="forget_request")
    op.alter_column(
        "forget_request", "due_at", server_default=sa.text("clock_timestamp() + interval '1 month'")
    )
    op.drop_column("forget_request", "alarm_percent")
    op.drop_column("forget_request", "paused_at")
    op.drop_column("forget_request", "extended_months")
