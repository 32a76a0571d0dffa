from condconv_jax.data import SkippingSource, detection
from condconv_jax.data.source import ConcatenatedSource, SubsetSource


def counts(source):
    found = detection.object_counts(source)
    return found.boxes.tolist(), found.objects.tolist()


def test_counts_of_a_source_and_of_what_is_made_of_it(coco):
    source = detection.open_coco("train", path=coco.write())
    # Pictures 7, 3 and 5: one box; two, of which one a crowd; none.
    assert counts(source) == ([1, 2, 0], [1, 1, 0])
    assert counts(SubsetSource(source, 1, 3, "part")) == ([2, 0], [1, 0])
    both = ConcatenatedSource([source, SubsetSource(source, 0, 1, "part")], "both")
    assert counts(both) == ([1, 2, 0, 1], [1, 1, 0, 1])
    assert counts(SkippingSource(both, 0, print)) == counts(both)


def test_sources_that_do_not_know(coco):
    class Unknown:
        class_names, name, remarks = ("ant", "bee"), "unknown", ()

        def __len__(self):
            return 3

    source = detection.open_coco("train", path=coco.write())
    assert detection.object_counts(Unknown()) is None
    assert detection.object_counts(SubsetSource(Unknown(), 0, 1, "part")) is None
    assert detection.object_counts(ConcatenatedSource([source, Unknown()], "both")) is None
