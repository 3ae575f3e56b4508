from etcdproxy.limits import Bucket, Limits


def test_a_bucket_gives_a_burst_then_the_rate() -> None:
    limits = Limits(peer_requests_per_s=10, peer_requests_burst=5)
    bucket = Bucket(5, at=100.0)
    assert [bucket.take(limits, 100.0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert [bucket.take(limits, 100.25) for _ in range(3)] == [True, True, False]
    assert sum(bucket.take(limits, 1000.0) for _ in range(20)) == 5
