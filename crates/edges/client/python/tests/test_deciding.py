"""What is decided without sending anything."""

import unittest

from hotpair_client import Client, ConfigurationError
from hotpair_client.session import named
from hotpair_client.targets import (
    Again,
    Answer,
    BothDown,
    Course,
    Nothing,
    Numbers,
    Take,
    Targets,
    Unknown,
)

NUMBERS = [0] + list(range(308000000, 308000014))


def envelope(error_no=0, epoch=1, **more):
    return Answer({"error_no": error_no, "epoch": epoch, "error_info": "why", "data": {}, **more})


class TargetsTest(unittest.TestCase):
    def test_the_first_is_asked_first_and_whoever_answers_is_asked_again(self):
        targets = Targets(["a:1", "b:2"])
        self.assertEqual(targets.choose(0), "a:1")
        targets.handle(0, "a:1", Nothing(False, "lost"))
        self.assertEqual(targets.choose(0), "b:2")
        targets.handle(0, "b:2", envelope(epoch=3))
        self.assertEqual(targets.choose(9), "b:2")
        targets.handle(9, "b:2", Nothing(True, "lost"))
        self.assertEqual(targets.choose(9), "a:1")

    def test_who_does_not_serve_says_where_to_go(self):
        targets = Targets(["a:1", "b:2"])
        targets.handle(0, "a:1", envelope(308000005, data={"master": "c:3"}))
        self.assertEqual(targets.choose(0), "c:3")
        targets.handle(0, "c:3", Nothing(False, "lost"))
        targets.handle(0, "a:1", envelope(308000005, data={"master": "c:3"}))
        self.assertEqual(targets.choose(0), "b:2")
        targets.handle(0, "b:2", envelope(308000005, data={"master": "no address"}))
        self.assertNotEqual(targets.choose(0), "no address")

    def test_an_answer_of_an_epoch_that_is_over_is_none(self):
        targets = Targets(["a:1", "b:2"])
        targets.handle(0, "b:2", envelope(epoch=8))
        self.assertTrue(targets.is_stale(envelope(epoch=7)))
        self.assertFalse(targets.is_stale(envelope(308000005, epoch=7)))


class CourseTest(unittest.TestCase):
    def test_what_may_have_been_done_is_sent_again_only_if_that_is_harmless(self):
        unknown = {"executed": "unknown"}
        for heard in [
            Nothing(True, "lost"),
            envelope(308000000, data=unknown),
            envelope(308000005, data=unknown),
        ]:
            course = Course(True)
            self.assertIsInstance(course.next(heard, False, 0.5), Again)
            self.assertTrue(course.may_be_done)
            self.assertIsInstance(Course(False).next(heard, False, 0.5), Unknown)
        for heard in [Nothing(False, "lost"), BothDown(), envelope(308000000)]:
            course = Course(False)
            self.assertIsInstance(course.next(heard, False, 0.5), Again)
            self.assertFalse(course.may_be_done)

    def test_four_numbers_are_waited_out_and_every_other_is_the_answer(self):
        again = {308000000, 308000005, 308000006, 308000008}
        for number in NUMBERS:
            step = Course(True).next(envelope(number), False, 0.5)
            self.assertEqual(isinstance(step, Again), number in again, number)
        kept = envelope(308000006, ticket="7")
        self.assertIsInstance(Course(True).next(kept, False, 0.5), Take)


class NumbersTest(unittest.TestCase):
    def test_numbers_stay_within_64_of_the_oldest_that_is_open(self):
        numbers = Numbers()
        self.assertEqual([numbers.take() for _ in range(65)], list(range(1, 65)) + [None])
        for number in range(2, 65):
            numbers.give_back(number)
        self.assertEqual((numbers.take(), numbers.done_up_to()), (None, 0))
        numbers.give_back(1)
        self.assertEqual((numbers.done_up_to(), numbers.take()), (64, 65))


class ConfigurationTest(unittest.TestCase):
    def test_addresses_and_names_that_make_no_sense_are_refused(self):
        Client(["http://a:1", "b:2/"])
        Client(["https://a:1", "https://b:2"])
        for bad in [[], ["https://a:1", "b:2"], ["ftp://a:1"], ["a"], ["http://a:1/v1"], ["a:1"] * 5]:
            with self.assertRaises(ConfigurationError, msg=bad):
                Client(bad)
        for bad in ["https://a:1", "http://a:1"]:
            with self.assertRaises(ConfigurationError, msg=bad):
                Client([bad], authority="/nowhere.pem")
        self.assertEqual(named("g/s/1.0:n"), {"gsv": "g/s/1.0", "name": "n"})
        for bad in ["echo", "g/s:n", "g/s/1:", True]:
            with self.assertRaises(ConfigurationError, msg=bad):
                named(bad)


if __name__ == "__main__":
    unittest.main()
