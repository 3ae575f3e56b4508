from etcdproxy.limits import Bucket


def take(bucket: Bucket, now: float) -> bool:
    if not bucket.fill(10, 5, now):
        return False
    bucket.tokens -= 1
    return True


def test_a_bucket_gives_a_burst_then_the_rate() -> None:
    bucket = Bucket(5, at=100.0)
    assert [take(bucket, 100.0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert [take(bucket, 100.25) for _ in range(3)] == [True, True, False]
    assert sum(take(bucket, 1000.0) for _ in range(20)) == 5
