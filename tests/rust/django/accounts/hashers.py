from django.contrib.auth import hashers

hashings = []


class Quick(hashers.PBKDF2PasswordHasher):
    iterations = 1000

    def encode(self, password, salt, iterations=None):
        hashings.append(iterations or self.iterations)
        return super().encode(password, salt, iterations)


class QuickSha1(hashers.PBKDF2SHA1PasswordHasher):
    iterations = 1000
