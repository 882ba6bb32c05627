"""Why a call has no answer that can be used."""


class HotpairError(Exception):
    """Any of the below."""


class ConfigurationError(HotpairError):
    """What was given to the client makes no sense. Nothing was sent."""


class Refused(HotpairError):
    """The pair refused it, or the function failed.

    Nothing was executed, except where the number says otherwise (308000012, 308000013).
    """

    def __init__(self, error_no, info, data):
        super().__init__(f"{error_no}: {info}")
        self.error_no = error_no
        self.info = info
        self.data = data


class SessionOver(HotpairError):
    """The session is over: log in again. The request was not executed."""

    def __init__(self):
        super().__init__("the session is over: log in again")


class OutcomeUnknown(HotpairError):
    """It is not known whether the request was executed."""


class TimedOut(HotpairError):
    """No answer within the call's time."""

    def __init__(self, limit, may_be_done, last):
        executed = "it may have been executed" if may_be_done else "it was not executed"
        super().__init__(f"no answer within {limit} s; {executed}; last: {last}")
        self.may_be_done = may_be_done


class UnknownTicket(HotpairError):
    """The ticket's answer was taken already."""


def data_of(envelope):
    """The data of an envelope that says done; else what it says is raised."""
    number = envelope.get("error_no")
    if number == 0:
        return envelope.get("data")
    if number == 308000001:
        raise SessionOver()
    raise Refused(number, envelope.get("error_info", ""), envelope.get("data"))
