"""What parties do with what is theirs: identities and party files, contracts that they draft and sign, results that they open."""
