// The protocol between the launcher and the guard of each rank: lines of text over TCP.
//
//   guard -> launcher   hello TOKEN RANK HOST     the first line, sent once
//                       exit CODE ASKED | killed SIGNAL ASKED   how the program ended; ASKED is 1
//                                                  if it ended by or after a signal that was passed on
//                       failed TEXT                the program could not be run
//   launcher -> guard   go                         start the program (sent once every rank has said hello)
//                       signal NUMBER              pass the signal on to the program
//                       bye                        the launcher has recorded the end: exit
//
// A closed connection means that the other side is gone. The launcher then reports the rank as lost, and a
// guard kills the processes that it started. So no process outlives the launcher on any host, however the
// launcher ends, and whether mpirun or srun clean up does not matter.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

namespace trireme {

/// Sends and receives whole lines over one connected socket, which it owns. Not thread-safe.
class LineSocket {
 public:
  explicit LineSocket(int fd) : fd_(fd) {}
  ~LineSocket();
  LineSocket(const LineSocket&) = delete;
  LineSocket& operator=(const LineSocket&) = delete;

  int fd() const { return fd_; }
  /// Sends a line without blocking. Returns false if the other side is gone or does not read.
  bool send(const std::string& line);
  /// Reads the bytes that have arrived without blocking, and appends whole lines to `lines`. Returns false if
  /// the other side is gone, or sends a line that is longer than any of the protocol.
  bool receive(std::vector<std::string>* lines);

 private:
  int fd_;
  std::string partial_;
};

/// The launcher's end of the protocol: accepts the connections of guards.
class ControlServer {
 public:
  /// Listens on a free port: on every address if `reachable_from_outside`, otherwise on the loopback only.
  /// Throws Error(kUsage) if that fails.
  explicit ControlServer(bool reachable_from_outside);
  ~ControlServer();
  ControlServer(const ControlServer&) = delete;
  ControlServer& operator=(const ControlServer&) = delete;

  int fd() const { return fd_; }
  const std::string& token() const { return token_; }
  /// Returns a connection that waits to be accepted, or null if there is none. Its hello line tells the rank.
  std::unique_ptr<LineSocket> accept();
  /// Returns the value of kControlVariable for the guards: port, token and addresses, joined by commas.
  std::string contact() const;

 private:
  int fd_;
  bool outside_;
  std::string token_;
};

/// The environment variable that tells a guard how to reach its launcher.
inline constexpr const char* kControlVariable = "TRIREME_CONTROL";

/// Connects a guard to its launcher: tries each address of `contact` until one answers. Throws Error(kPeer)
/// if none has answered after `deadline`.
std::unique_ptr<LineSocket> connect_to_launcher(const std::string& contact,
                                                std::chrono::milliseconds deadline);

/// Returns the token in `contact`, or "" if there is none.
std::string token_of(const std::string& contact);

}  // namespace trireme
