#include "distributed/train/identity.h"

#include <elf.h>
#include <link.h>

#include <algorithm>
#include <sstream>

#include "distributed/train/run.h"

namespace trireme {

std::string build_id() {
  std::string id = "unknown";
  // The program itself comes first.
  dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* to) {
        for (int i = 0; i < info->dlpi_phnum; ++i) {
          const auto& header = info->dlpi_phdr[i];
          if (header.p_type != PT_NOTE) continue;
          const auto* at = reinterpret_cast<const char*>(info->dlpi_addr + header.p_vaddr);
          const auto* const end = at + header.p_memsz;
          while (at + sizeof(ElfW(Nhdr)) <= end) {
            const auto* const note = reinterpret_cast<const ElfW(Nhdr)*>(at);
            const auto padded = [](std::size_t size) { return (size + 3) / 4 * 4; };
            const auto* const bytes =
                reinterpret_cast<const unsigned char*>(at) + sizeof *note + padded(note->n_namesz);
            if (note->n_type == NT_GNU_BUILD_ID) {
              auto& text = *static_cast<std::string*>(to);
              text.clear();
              for (std::size_t b = 0; b < note->n_descsz; ++b) text += fmt::format("{:02x}", bytes[b]);
              return 1;
            }
            at += sizeof *note + padded(note->n_namesz) + padded(note->n_descsz);
          }
        }
        return 1;
      },
      &id);
  return id;
}

std::vector<Fact> facts_of(JobOptions options) {
  options.clear_quiet();
  std::vector<Fact> facts{{"program", build_id()}, {"libraries", build_description()}};
  std::istringstream lines(to_text(options));
  for (std::string line; std::getline(lines, line);) {
    const std::size_t end = line.find(':');
    facts.push_back({line.substr(0, end), line.substr(std::min(line.size(), end + 2))});
  }
  return facts;
}

}  // namespace trireme
