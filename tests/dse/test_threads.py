import threadpoolctl

from dse._threads import one_thread


def test_linear_algebra_has_one_thread_inside_and_what_it_had_outside():
    def counts():
        return [library["num_threads"] for library in threadpoolctl.threadpool_info()]

    with one_thread():
        pass  # its libraries are loaded
    with threadpoolctl.threadpool_limits(2):
        before = counts()
        with one_thread():
            assert set(counts()) == {1}
        assert counts() == before
        assert 2 in before
