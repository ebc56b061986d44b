// Tests the warnings about effects of the learning rate schedule that are not obvious from the flags.
#include "distributed/train/schedule.h"

#include <gtest/gtest.h>

#include "tests/support/errors.h"

namespace trireme {
namespace {

JobOptions options(const std::string& schedule, std::int64_t warmup = 0) {
  JobOptions o;
  o.set_schedule(schedule);
  o.set_lr(0.1);
  o.set_warmup_steps(warmup);
  return o;
}

TEST(LengthWarning, NamesBothLearningRatesOfTheFirstStepThatDiffers) {
  // Cosine: 0.1 * 0.5 * (1 + cos(pi * 10 / 12)) = 0.0066987. The earlier run ended with 0.
  EXPECT_EQ(length_warning(options("cosine"), 10, 10, 12),
            "the run was planned for 10 steps and now has 12: with --schedule cosine the learning rate after "
            "10 steps "
            "is 0.006699 instead of 0");
  // The step schedule divides by 10 at one half: after 50 of 100 steps, after 100 of 200 steps.
  EXPECT_EQ(length_warning(options("step"), 20, 100, 200),
            "the run was planned for 100 steps and now has 200: with --schedule step the learning rate after "
            "50 steps "
            "is 0.1 instead of 0.01");
  test::expect_holds(length_warning(options("onecycle"), 50, 100, 80).value_or(""),
                     {"planned for 100 steps and now has 80", "onecycle", "after 50 steps"});
}

TEST(LengthWarning, IsSilentWhereNoStepToComeChanges) {
  EXPECT_FALSE(length_warning(options("constant"), 10, 10, 12));
  EXPECT_FALSE(length_warning(options("cosine"), 5, 10, 10));
  EXPECT_FALSE(length_warning(options("cosine"), 12, 10, 12)) << "nothing is left to train";
  EXPECT_FALSE(length_warning(options("step"), 190, 210, 200)) << "both are in their last quarter";
}

TEST(WarmupWarning, SaysHowFarAWarmUpComesThatIsLongerThanTheRun) {
  EXPECT_EQ(warmup_warning(options("cosine", 20), 2),
            "--warmup-steps 20 is longer than the run of 2 steps: the learning rate rises to 0.01 and never "
            "reaches --lr 0.1");
  EXPECT_TRUE(warmup_warning(options("constant", 11), 10));
  EXPECT_FALSE(warmup_warning(options("constant", 10), 10)) << "the last step has the whole learning rate";
  EXPECT_FALSE(warmup_warning(options("constant"), 10));
}

TEST(TotalSteps, AreThoseOfStepsOrEpochs) {
  JobOptions o;
  EXPECT_EQ(total_steps_of(o, 7), 7);
  o.set_epochs(3);
  EXPECT_EQ(total_steps_of(o, 7), 21);
  o.set_steps(5);
  EXPECT_EQ(total_steps_of(o, 7), 5);
}

}  // namespace
}  // namespace trireme
