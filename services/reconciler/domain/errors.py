"""What can be wrong with a run, and with asking about a payment."""

from __future__ import annotations

from shared.errors import DomainError, InfrastructureError


class SyncRefused(DomainError):
    """payment_service answered that it cannot ask about this payment, and why."""

    code = "sync_refused"
    status = 409

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason


class CaseAlreadyResolved(DomainError):
    """The case is resolved; if the disagreement is still there, the next run opens another one."""

    code = "case_resolved"
    status = 409


class SecondPersonNeeded(DomainError):
    """You have asked for this already; it moves money, so another person has to ask for the same."""

    code = "second_person_needed"
    status = 409


class RunFirst(DomainError):
    """A command of this case may be on its way still. Start a run once it has had its time, and ask again."""

    code = "run_first"
    status = 409


class ActionNotPossible(DomainError):
    """The command cannot be sent: what it is about is not known here, or COMMAND_SIGNING_KEY is not set."""

    code = "action_not_possible"
    status = 422


class TooManyUploads(InfrastructureError):
    """As many settlement files are being sent as this process reads at once. Send this one again shortly."""

    code = "too_many_uploads"


class LeaseLost(InfrastructureError):
    """Another runner has taken the sweep over; nothing that was learnt meanwhile is written by this one."""

    code = "lease_lost"


class ExportBroken(InfrastructureError):
    """An export broke off or is not understood; what came whole before is kept, and it is read again from there."""

    code = "export_broken"


class ExportWentBack(InfrastructureError):
    """An owner's export lacks what it exported before: its database was restored from an old copy, or it is at another
    one. Nothing is compared with it; where it was restored on purpose, set ACCEPT_RESTORED_EXPORTS once."""

    code = "export_went_back"


class FileRefused(DomainError):
    """The file cannot be read as a settlement file; nothing of it was stored."""

    code = "file_unreadable"
    status = 422

    @staticmethod
    def because(code: str, detail: str) -> FileRefused:
        """What a reader found wrong, with a code of its own where a caller may want to tell it from others."""
        kind = _REFUSALS.get(code)
        return FileRefused(f"{detail} ({code})") if kind is None else kind(detail)


class FileEmpty(FileRefused):
    """The file is empty."""

    code = "empty"


class FileIsBinary(FileRefused):
    """The file is neither text nor a spreadsheet."""

    code = "binary"


class FileTruncated(FileRefused):
    """The file ends too early; a part of it is missing."""

    code = "truncated"


class FormatUnknown(FileRefused):
    """No settlement format knows these columns."""

    code = "format_unknown"


class WrongGateway(FileRefused):
    """This is a settlement file of another gateway."""

    code = "wrong_gateway"


class ArchiveRefused(FileRefused):
    """The archive holds something else than one settlement file."""

    code = "archive_refused"


class FileTooLarge(FileRefused):
    """The file is larger than SETTLEMENT_MAX_BYTES, or expands to more than SETTLEMENT_MAX_CONTENT_BYTES."""

    code = "too_large"
    status = 413


class AccountUnknown(FileRefused):
    """No payment is known of this account."""

    code = "account_unknown"


class KnownElsewhere(FileRefused):
    """The same content is here already, as a file of another account: booked for both it would count twice."""

    code = "known_elsewhere"
    status = 409


class FileChanged(FileRefused):
    """The file changed while it was taken in; send it when it is complete."""

    code = "changed"


class NotInspected(FileRefused):
    """Looking at the file failed or took too long, more than once; nothing of it was stored. Send it again later."""

    code = "not_inspected"
    status = 503


_REFUSALS: dict[str, type[FileRefused]] = {
    kind.code: kind
    for kind in (
        FileEmpty,
        FileIsBinary,
        FileTruncated,
        FormatUnknown,
        WrongGateway,
        ArchiveRefused,
        FileTooLarge,
    )
}
