"""Settings of the whole suite. Fixtures live beside the tests that use them."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "nsqkit",
    deadline=None,  # a busy machine is no failure; pytest-timeout has the last word
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("nsqkit")
