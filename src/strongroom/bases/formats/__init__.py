"""The formats that firmware and clouds boot: PE, UKI, FAT, GPT, EIF."""
