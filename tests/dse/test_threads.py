import threadpoolctl

from dse._threads import one_thread


def counts():
    return {library["filepath"]: library["num_threads"] for library in threadpoolctl.threadpool_info()}


def test_linear_algebra_has_one_thread_inside_and_what_it_had_outside():
    with one_thread():
        pass  # its libraries are loaded
    with threadpoolctl.threadpool_limits(2):
        before = counts()
        with one_thread():
            assert set(counts().values()) == {1}
        assert counts() == before
        assert 2 in before.values()
