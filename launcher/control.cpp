#include "launcher/control.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <sstream>
#include <thread>

#include "core/base/random_hex.h"
#include "kernels/error.h"

namespace trireme {
namespace {

using Clock = std::chrono::steady_clock;

/// Makes TCP notice within about five seconds that the host of the other side has lost power or its link.
void watch_connection(int fd) {
  const int on = 1, idle = 2, interval = 1, probes = 3, unanswered_ms = 5000;
  setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
  setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unanswered_ms, sizeof unanswered_ms);
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

/// Returns this host's IPv4 addresses, the loopback last.
std::vector<std::string> own_addresses() {
  std::vector<std::string> found;
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) return {"127.0.0.1"};
  for (const ifaddrs* entry = list; entry; entry = entry->ifa_next) {
    if (!entry->ifa_addr || entry->ifa_addr->sa_family != AF_INET) continue;
    if (!(entry->ifa_flags & IFF_UP) || (entry->ifa_flags & IFF_LOOPBACK)) continue;
    char text[INET_ADDRSTRLEN];
    const auto* address = reinterpret_cast<const sockaddr_in*>(entry->ifa_addr);
    found.emplace_back(inet_ntop(AF_INET, &address->sin_addr, text, sizeof text));
  }
  freeifaddrs(list);
  found.emplace_back("127.0.0.1");
  return found;
}

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, ',');) parts.push_back(part);
  return parts;
}

/// Returns a connected socket, or -1 if the connection fails or takes longer than `patience`.
int try_connect(const std::string& host, int port, std::chrono::milliseconds patience) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  if (inet_pton(AF_INET, host.c_str(), &address.sin_addr) != 1) return -1;
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -1;
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    pollfd ready{fd, POLLOUT, 0};
    int error = errno;
    socklen_t size = sizeof error;
    if (error == EINPROGRESS && poll(&ready, 1, static_cast<int>(patience.count())) == 1) {
      getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
    }
    if (error != 0) {
      close(fd);
      return -1;
    }
  }
  watch_connection(fd);
  return fd;
}

}  // namespace

LineSocket::~LineSocket() { close(fd_); }

bool LineSocket::send(const std::string& line) {
  // Lines are few and short, so a full socket buffer means that the other side does not read.
  const std::string whole = line + "\n";
  return ::send(fd_, whole.data(), whole.size(), MSG_NOSIGNAL | MSG_DONTWAIT) ==
         static_cast<ssize_t>(whole.size());
}

bool LineSocket::receive(std::vector<std::string>* lines) {
  for (;;) {
    char chunk[1024];
    const ssize_t got = recv(fd_, chunk, sizeof chunk, MSG_DONTWAIT);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno == EAGAIN || errno == EWOULDBLOCK;
    if (got == 0) return false;
    partial_.append(chunk, static_cast<size_t>(got));
    for (size_t end; (end = partial_.find('\n')) != std::string::npos; partial_.erase(0, end + 1)) {
      lines->push_back(partial_.substr(0, end));
    }
    if (partial_.size() > 4096) return false;  // the other side does not speak this protocol
  }
}

ControlServer::ControlServer(bool reachable_from_outside)
    : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)),
      outside_(reachable_from_outside),
      token_(random_hex(32)) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(outside_ ? INADDR_ANY : INADDR_LOOPBACK);
  if (fd_ < 0 || bind(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      listen(fd_, SOMAXCONN) != 0) {
    const int error = errno;
    if (fd_ >= 0) close(fd_);
    fail(ExitCode::kUsage, "cannot listen for ranks on TCP: {}", std::strerror(error));
  }
}

ControlServer::~ControlServer() { close(fd_); }

std::unique_ptr<LineSocket> ControlServer::accept() {
  const int fd = accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd < 0) return nullptr;
  watch_connection(fd);
  return std::make_unique<LineSocket>(fd);
}

std::string ControlServer::contact() const {
  sockaddr_in address{};
  socklen_t size = sizeof address;
  getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size);
  std::string text = fmt::format("{},{}", ntohs(address.sin_port), token_);
  for (const std::string& own : outside_ ? own_addresses() : std::vector<std::string>{"127.0.0.1"}) {
    text += "," + own;
  }
  return text;
}

std::unique_ptr<LineSocket> connect_to_launcher(const std::string& contact,
                                                std::chrono::milliseconds deadline) {
  const std::vector<std::string> parts = split(contact);
  const auto end = Clock::now() + deadline;
  while (parts.size() > 2 && Clock::now() < end) {
    for (size_t i = 2; i < parts.size(); ++i) {
      const int fd = try_connect(parts[i], std::atoi(parts[0].c_str()), std::chrono::seconds(2));
      if (fd >= 0) return std::make_unique<LineSocket>(fd);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  fail(ExitCode::kPeer, "cannot reach the launcher at any of its addresses within {} ms", deadline.count());
}

std::string token_of(const std::string& contact) {
  const std::vector<std::string> parts = split(contact);
  return parts.size() > 1 ? parts[1] : "";
}

}  // namespace trireme
