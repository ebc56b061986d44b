#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cmath>

#include "core/metrics/progress.h"

namespace trireme {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

Progress full() {
  Progress p;
  p.epoch = 2;
  p.epochs = 5;
  p.step = 1234;
  p.steps = 2345;
  p.loss = 0.43214;
  p.accuracy = 0.9123;
  p.samples_per_second = 12345.6;
  p.sample = "images";
  p.hidden = 0.974;
  p.lr = 0.05;
  p.seconds_left = 133;
  return p;
}

TEST(FormatProgress, TellsEverythingWhereThereIsRoom) {
  EXPECT_EQ(format_progress(full(), 200),
            "epoch 2/5  [=====>    ]   52%  step 1234/2345  loss 0.4321  acc 91.23%  12,346 images/s  "
            "comm 97% hidden  lr 0.05  left 2:13");
}

TEST(FormatProgress, NeverWiderThanTheTerminalAndStepAndLossStayLongest) {
  Progress p = full();
  p.steps = 123456789;
  for (int width = 0; width < 200; ++width) {
    const std::string line = format_progress(p, width);
    EXPECT_LE(line.size(), static_cast<std::size_t>(width));
    EXPECT_EQ(line.find_first_of("\r\n\x1b"), std::string::npos);
    EXPECT_EQ(line.find("step      1234/123456789  loss 0.4321") != std::string::npos, width >= 37) << line;
    EXPECT_EQ(line.find("loss 0.4321") != std::string::npos, width >= 11) << line;
  }
  EXPECT_EQ(format_progress(full(), 77), "epoch 2/5  step 1234/2345  loss 0.4321  acc 91.23%  left 2:13");
  EXPECT_EQ(format_progress(full(), 78),
            "epoch 2/5  step 1234/2345  loss 0.4321  acc 91.23%  12,346 images/s  left 2:13");
}

TEST(FormatProgress, LeavesOutWhatIsUnknown) {
  Progress p;
  p.step = 7;
  EXPECT_EQ(format_progress(p, 80), "step 7  loss nan");
  p.loss = INFINITY;
  p.epoch = 3;
  p.sample = "tokens";
  p.samples_per_second = 0.5;
  EXPECT_EQ(format_progress(p, 80), "epoch 3  step 7  loss inf  0.5000 tokens/s");
}

TEST(FormatProgress, HundredPercentIsForTheEnd) {
  Progress p;
  p.steps = 1000;
  p.step = 999;
  EXPECT_NE(format_progress(p, 80).find(" 99%"), std::string::npos);
  p.step = 1000;
  EXPECT_NE(format_progress(p, 80).find("[==========]  100%"), std::string::npos);
  p.step = 2000;  // more steps than planned
  EXPECT_NE(format_progress(p, 80).find("[==========]  100%"), std::string::npos);
}

TEST(FormatProgress, NumbersOfAnySize) {
  Progress p;
  for (const auto& [loss, text] : std::vector<std::pair<double, std::string>>{{0, "0.0000"},
                                                                              {1e-9, "1.00e-09"},
                                                                              {9.87654, "9.8765"},
                                                                              {12.3456, "12.35"},
                                                                              {123.456, "123.5"},
                                                                              {-1234.5678, "-1,235"},
                                                                              {999999, "999,999"},
                                                                              {1e30, "1.00e+30"}}) {
    p.loss = loss;
    EXPECT_EQ(format_progress(p, 80), "step 0  loss " + text);
  }
}

TEST(FormatDuration, FromSecondsToYears) {
  EXPECT_EQ(format_duration(0), "0:00");
  EXPECT_EQ(format_duration(59.4), "0:59");
  EXPECT_EQ(format_duration(59.6), "1:00");
  EXPECT_EQ(format_duration(3599), "59:59");
  EXPECT_EQ(format_duration(3 * 3600 + 25 * 60 + 45), "3:25:45");
  EXPECT_EQ(format_duration(12.2 * 86400), "12d 04h");
  EXPECT_EQ(format_duration(1e8), "1157d 09h");
  EXPECT_EQ(format_duration(1e18), "?");
  EXPECT_EQ(format_duration(-1), "?");
  EXPECT_EQ(format_duration(NAN), "?");
  EXPECT_EQ(format_duration(INFINITY), "?");
}

std::string drain(int descriptor) {
  fcntl(descriptor, F_SETFL, O_NONBLOCK);
  std::string all;
  char bytes[4096];
  for (ssize_t size; (size = read(descriptor, bytes, sizeof bytes)) > 0;) {
    all.append(bytes, static_cast<std::size_t>(size));
  }
  return all;
}

/// The two ends of a pipe or of a terminal. Bytes written to `in` can be read from `out`.
struct Ends {
  int out = -1, in = -1;
  ~Ends() {
    close(out);
    close(in);
  }
};

TEST(ProgressLine, PlainLinesEveryFiveSecondsWithoutATerminal) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const Ends pipe_ends{ends[0], ends[1]};
  ProgressLine line(ends[1]);
  const ProgressLine::Clock::time_point start{seconds(1000)};
  Progress p;
  for (int ms = 0; ms <= 11000; ms += 100) {
    p.step = ms;
    line.update(p, start + milliseconds(ms));
  }
  EXPECT_EQ(drain(ends[0]), "step 0  loss nan\nstep 5000  loss nan\nstep 10000  loss nan\n");
  p.step = 7;
  line.finish_line(p, start + seconds(11));
  line.update(p, start + seconds(15));
  line.message("hello");
  EXPECT_EQ(drain(ends[0]), "step 7  loss nan\nhello\n");
}

Ends open_terminal(unsigned short columns) {
  setenv("TERM", "xterm", 1);
  Ends ends;
  ends.out = posix_openpt(O_RDWR | O_NOCTTY);
  EXPECT_EQ(grantpt(ends.out), 0);
  EXPECT_EQ(unlockpt(ends.out), 0);
  ends.in = open(ptsname(ends.out), O_RDWR | O_NOCTTY);
  EXPECT_GE(ends.in, 0);
  const winsize size{24, columns, 0, 0};
  ioctl(ends.out, TIOCSWINSZ, &size);
  return ends;
}

TEST(ProgressLine, RewritesOneLineOnATerminal) {
  const Ends terminal = open_terminal(40);
  const ProgressLine::Clock::time_point start{seconds(1000)};
  {
    ProgressLine line(terminal.in);
    Progress p;
    p.loss = 1;
    for (int ms = 0; ms < 250; ms += 10) {
      p.step = ms;
      line.update(p, start + milliseconds(ms));
    }
    EXPECT_EQ(drain(terminal.out),
              "\r\x1b[Kstep 0  loss 1.0000\r\x1b[Kstep 100  loss 1.0000\r\x1b[Kstep 200  loss 1.0000");
    line.message("saved");
    EXPECT_EQ(drain(terminal.out), "\r\x1b[Ksaved\r\n");
    line.update(p, start + milliseconds(251));  // shows the line again without delay
    EXPECT_EQ(drain(terminal.out), "\r\x1b[Kstep 240  loss 1.0000");
  }
  EXPECT_EQ(drain(terminal.out), "\r\n");
}

TEST(ProgressLine, FollowsTheWidthOfTheTerminalAndNeverWraps) {
  const Ends terminal = open_terminal(40);
  ProgressLine line(terminal.in);
  for (const unsigned short columns : {40, 80, 120, 25, 2}) {
    const winsize size{24, columns, 0, 0};
    ioctl(terminal.out, TIOCSWINSZ, &size);
    line.finish_line(full());
    std::string text = drain(terminal.out);
    ASSERT_TRUE(text.starts_with("\r\x1b[K") && text.ends_with("\r\n"));
    text = text.substr(4, text.size() - 6);
    EXPECT_EQ(text, format_progress(full(), columns - 1));
  }
}

TEST(ProgressLine, DumbTerminalsGetPlainLines) {
  const Ends terminal = open_terminal(40);
  setenv("TERM", "dumb", 1);
  ProgressLine line(terminal.in);
  line.finish_line(Progress());
  EXPECT_EQ(drain(terminal.out), "step 0  loss nan\r\n");
}

TEST(ProgressLine, NeitherAFullPipeNorAGoneReaderStopsTheRun) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const int flags = fcntl(ends[1], F_GETFL);
  fcntl(ends[1], F_SETFL, flags | O_NONBLOCK);
  const std::string block(4096, 'x');
  while (write(ends[1], block.data(), block.size()) > 0) {
  }
  fcntl(ends[1], F_SETFL, flags);
  ProgressLine line(ends[1]);
  line.finish_line(full());  // a blocking write would never return
  close(ends[0]);
  line.finish_line(full());  // SIGPIPE would end the process
  close(ends[1]);
  line.finish_line(full());
}

}  // namespace
}  // namespace trireme
