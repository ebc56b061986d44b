// The wire between the launcher and the guard of each rank: lines of text over TCP.
//
//   guard -> launcher   hello TOKEN RANK HOST     once, first
//                       exit CODE ASKED | killed SIGNAL ASKED   how the program ended; ASKED is 1
//                                                  when it answered a signal that was passed on to it
//                       failed TEXT                the program could not be run
//   launcher -> guard   go                         start the program (sent when every rank is there)
//                       signal NUMBER              pass it on to the program
//                       bye                        the end was noted: leave
//
// A closed connection means that the other side is gone. The launcher reports its rank as lost; the
// guard kills what it started. So nothing outlives the launcher, on its own host or another, however
// it ends, and nothing depends on the temper of mpirun or srun.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

namespace trireme {

/// One connected socket with whole lines in and out. Not thread-safe.
class LineSocket {
 public:
  explicit LineSocket(int fd) : fd_(fd) {}
  ~LineSocket();
  LineSocket(const LineSocket&) = delete;
  LineSocket& operator=(const LineSocket&) = delete;

  int fd() const { return fd_; }
  /// False once the other side is gone.
  bool send(const std::string& line);
  /// Reads what has arrived, without waiting; appends whole lines. False once the other side is gone.
  bool receive(std::vector<std::string>* lines);

 private:
  int fd_;
  std::string partial_;
};

/// The launcher's end.
class ControlServer {
 public:
  /// Listens on a free port. `reachable_from_outside`: on every address, not on the loopback only.
  explicit ControlServer(bool reachable_from_outside);
  ~ControlServer();
  ControlServer(const ControlServer&) = delete;
  ControlServer& operator=(const ControlServer&) = delete;

  int fd() const { return fd_; }
  const std::string& token() const { return token_; }
  /// The waiting connection, or null. Who it is must be read from its hello.
  std::unique_ptr<LineSocket> accept();
  /// Value of kControlVariable for the guards: port, token, addresses.
  std::string contact() const;

 private:
  int fd_;
  bool outside_;
  std::string token_;
};

/// The environment variable that tells a guard where its launcher is.
inline constexpr const char* kControlVariable = "TRIREME_CONTROL";

/// The guard's end: tries each address of `contact` until one answers. Error(kPeer) at the deadline.
std::unique_ptr<LineSocket> connect_to_launcher(const std::string& contact,
                                                std::chrono::milliseconds deadline);

/// The token inside a contact.
std::string token_of(const std::string& contact);

}  // namespace trireme
