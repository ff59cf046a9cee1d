"""The suite of optimizers passes a correct one that is not declared; planted/optimizers.py has the faults."""

from planted.optimizers import Correct

from helix_kernel.testing.optimizers import OptimizerSuite


class TestCorrect(OptimizerSuite):
    def make_optimizer(self, params):
        return Correct(params)
