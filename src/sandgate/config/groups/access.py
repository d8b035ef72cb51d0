"""Who is let in, what is written down of it, and whom the server believes."""

from pathlib import Path

from pydantic import SecretStr, field_validator, model_validator

from sandgate.config.groups.row import Group, setting
from sandgate.core.addresses import TrustedProxies
from sandgate.core.origins import parse_origins


class AccessSettings(Group):
    """Who is let in, what is written down of it, and whom the server believes."""

    admin_password: SecretStr = setting(
        SecretStr(""),
        "Password of the first admin, used only when no user exists. Empty: a random one is made and "
        "written to `initial-admin-password` in the state folder, until it is changed.",
    )
    token_lifetime_s: int = setting(3600, "How long a token is valid.", unit="s", ge=10, le=7 * 86_400)
    login_attempts: int = setting(
        10,
        "Failed logins of one name from one address that are answered before further ones are slowed down; half as "
        "many again of one name from everywhere, ten times as many from one address; all on this server.",
        ge=1,
        le=1000,
    )
    login_window_s: float = setting(60.0, "How long a failed login counts.", unit="s", ge=1, le=86_400)

    audit_retention_s: int = setting(
        365 * 86_400, "Entries of the audit log are kept for this long.", unit="s", ge=86_400
    )
    audit_executions: bool = setting(
        True, "Executions that the service carried out have an entry in the audit log; what was refused always has one."
    )
    audit_alike_per_minute: int = setting(
        60,
        "Executions of one user, changes of one kind to files, and input and sizes for processes, that have an entry "
        "each in the audit log within a minute on this server; the rest of the minute share one, which says how many "
        "they were.",
        ge=1,
        le=1_000_000,
    )

    # Reached from elsewhere
    tls_certificate: Path | None = setting(
        None, "File with the certificate and those that lead to its root, in PEM. With it, the server speaks TLS only."
    )
    tls_key: Path | None = setting(
        None, "File with its key, in PEM, without a password. Both files are read again when they change."
    )
    trusted_proxies: str = setting(
        "",
        "Addresses and networks (`10.1.0.0/16`) of proxies, separated by commas, that are believed about their clients "
        "(`X-Forwarded-For`, `X-Forwarded-Proto`, `X-Forwarded-Host`). Nobody else is.",
    )
    cors_origins: str = setting(
        "",
        "Origins (`https://app.example.com`), separated by commas, of web pages whose scripts may ask this server and "
        "read its answers. Empty: none.",
    )

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, text: str) -> str:
        parse_origins(text)
        return text

    @field_validator("trusted_proxies")
    @classmethod
    def _check_proxies(cls, text: str) -> str:
        TrustedProxies.parse(text)
        return text

    @model_validator(mode="after")
    def _check_tls(self) -> "AccessSettings":
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key go together")
        return self
